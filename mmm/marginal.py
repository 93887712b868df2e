"""Log marginal likelihood of the linear-Gaussian part with its gradient in closed form, and draws of that part.

    r_g = Z_g b_g + S_g s + e_g,   e_gt ~ N(0, 1 / w_gt),   b_g ~ N(0, V_b),   s ~ N(0, Q^-1)
    target = R b + n,              n ~ N(0, N) for the first rows; the rows after them are exact

| on paper | here | dims |
|---|---|---|
| Z_g | `Basis.local` beside `Terms.media` | period, B |
| S_g | `Basis.common`, the identity where `Basis.shock`, `Basis.controls` | period, S |
| L_g, H_g | `Factors.root_inverse` is L_g^-1, `Factors.link` is L_g^-1 Z'W S_g | geo, B, B and S |

The precision matrix is an arrow: blocks P_g = L L' = Z'WZ + V_b^-1, and after eliminating them the shared block
S'WS − sum_g H'H + Q. Rasmussen and Williams (2006), section 2.7, for the marginal likelihood with explicit basis
functions; Rue and Held (2005), section 2.3.3, for conditioning on extra rows.

The gradient is Fisher's identity: d log p(y) = E[d log p(y, b, s)] over the posterior of b and s, so that it needs
their means and a few covariances and no derivative of a Cholesky factor. One call costs two thirds more than the value;
reverse-mode differentiation through the factors costs four to six times the value (measured).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular


class Basis(NamedTuple):
    """Columns that do not depend on any parameter."""

    local: Any  # (G, T, Q)
    common: Any  # (T, P)
    controls: Any  # (G, T, K)
    shock: bool

    def split(self, shared: Any) -> tuple[Any, Any, Any]:
        """Rows of the shared coefficients: basis, shocks (None without), controls."""
        p, t = self.common.shape[1], self.common.shape[0] if self.shock else 0
        return shared[:p], shared[p : p + t] if self.shock else None, shared[p + t :]

    def join(self, by_time: Any, by_control: Any) -> Any:
        """S' of something by period (T, n) and by control (K, n): rows of the shared coefficients (S, n)."""
        parts = [self.common.T @ by_time, *([by_time] if self.shock else []), by_control]
        return jnp.concatenate(parts, axis=0)

    def onto(self, rows: Any) -> Any:
        """`rows` (G, n, T) times S_g, (G, n, S)."""
        parts = [rows @ self.common, *([rows] if self.shock else []), rows @ self.controls]
        return jnp.concatenate(parts, axis=2)

    def path(self, shared: Any) -> tuple[Any, Any]:
        """Shared coefficients (S, n) as paths common to all geos (T, n) and control coefficients (K, n)."""
        basis, shock, control = self.split(shared)
        path = self.common @ basis
        return (path if shock is None else path + shock), control


class Terms(NamedTuple):
    """What depends on the nonlinear parameters. Derivatives are taken by these."""

    weight: Any  # (G, T) observation precision, 0 where missing
    media: Any  # (G, T, C) columns of the geos' relative deviations, the last of Z
    residual: Any  # (G, T) data minus its prior mean
    local_var: Any  # (B,)
    precision: Any  # (S, S)
    rows: Any  # (R, G, C) extra rows on the media deviations
    target: Any  # (R,)
    noise: Any  # (N, N) covariance of the first N extra rows


class Factors(NamedTuple):
    """The factorised posterior of the linear part given the panel, and the extra rows seen from it."""

    columns: Any  # (G, T, B) Z
    root_inverse: Any  # (G, B, B) lower triangular
    whitened: Any  # (G, B, T) L^-1 Z'
    link: Any  # (G, B, S)
    local_rhs: Any  # (G, B) L^-1 Z'W r
    shared_inverse: Any  # (S, S) inverse of the shared block's root
    shared_rhs: Any  # (S,) root^-1 of the right-hand side
    half: Any  # (G·B, R) L^-1 R'
    across: Any  # (S, R) root^-1 H' L^-1 R'
    extra_root: Any  # (R, R) Cholesky factor of the extra rows' covariance
    pull: Any  # (R,) covariance^-1 (target − mean)


def factorise(basis: Basis, terms: Terms) -> Factors:
    """Eliminates the linear part."""
    g, t, c = terms.media.shape
    w, x = terms.weight, basis.controls
    columns = jnp.concatenate([basis.local, terms.media], axis=2)
    b = columns.shape[2]
    turned = jnp.swapaxes(columns, 1, 2)
    root = jnp.linalg.cholesky((turned * w[:, None, :]) @ columns + jnp.diag(1.0 / terms.local_var))
    root_inverse = solve_triangular(root, jnp.broadcast_to(jnp.eye(b), (g, b, b)), lower=True)
    whitened = root_inverse @ turned
    weighted = whitened * w[:, None, :]
    link = basis.onto(weighted)
    local_rhs = (weighted @ terms.residual[..., None])[..., 0]
    flat = link.reshape(g * b, link.shape[2])
    xw = x * w[..., None]
    k = x.shape[2]
    to_time, to_control = jnp.diag(w.sum(axis=0)), xw.sum(axis=0)
    left = basis.join(to_time, to_control.T)
    right = basis.join(to_control, xw.reshape(g * t, k).T @ x.reshape(g * t, k))
    own = jnp.concatenate([left @ basis.common, *([left] if basis.shock else []), right], axis=1)
    pushed = basis.join(
        (w * terms.residual).sum(axis=0)[:, None], xw.reshape(g * t, k).T @ terms.residual.reshape(g * t, 1)
    )
    shared_root = jnp.linalg.cholesky(own - flat.T @ flat + terms.precision)
    shared_inverse = solve_triangular(shared_root, jnp.eye(len(shared_root)), lower=True)
    shared_rhs = shared_inverse @ (pushed[:, 0] - flat.T @ local_rhs.reshape(g * b))
    half = (root_inverse[:, :, b - c :] @ jnp.transpose(terms.rows, (1, 2, 0))).reshape(g * b, terms.rows.shape[0])
    across = shared_inverse @ (flat.T @ half)
    n = terms.noise.shape[0]
    covariance = (half.T @ half + across.T @ across).at[:n, :n].add(terms.noise)
    extra_root = jnp.linalg.cholesky(covariance)
    mean = half.T @ local_rhs.reshape(g * b) - across.T @ shared_rhs
    pull = cho_solve((extra_root, True), terms.target - mean)
    return Factors(
        columns, root_inverse, whitened, link, local_rhs, shared_inverse, shared_rhs, half, across, extra_root, pull
    )


def _value(terms: Terms, f: Factors) -> Any:
    """Log density without the constants that `log_marginal` names."""
    w = terms.weight
    quad = (w * terms.residual**2).sum() - (f.local_rhs**2).sum() - (f.shared_rhs**2).sum()
    log_det = -2 * jnp.log(jnp.diagonal(f.root_inverse, axis1=1, axis2=2)).sum()
    log_det -= 2 * jnp.log(jnp.diagonal(f.shared_inverse)).sum()
    log_det -= jnp.log(jnp.where(w > 0, w, 1.0)).sum()
    gap = f.extra_root.T @ f.pull
    return -0.5 * (quad + log_det + (gap**2).sum()) - jnp.log(jnp.diagonal(f.extra_root)).sum()


def _means(f: Factors, shared_rhs: Any, local_rhs: Any) -> tuple[Any, Any]:
    """Coefficients local (G, B, n) and shared (S, n) that belong to whitened right-hand sides."""
    shared = f.shared_inverse.T @ shared_rhs
    return jnp.swapaxes(f.root_inverse, 1, 2) @ (local_rhs - f.link @ shared), shared


def _gradient(basis: Basis, terms: Terms, f: Factors) -> Terms:
    """Derivatives of `_value` by every term. Cov(b_g, fit_gt) = L^-T [U + H Q H'U − H Q S'] with U = L^-1 Z'."""
    g, t, c = terms.media.shape
    r, b = terms.rows.shape[0], f.columns.shape[2]
    turned = jnp.swapaxes(f.root_inverse, 1, 2)
    to_local, to_shared = _means(f, -f.across, f.half.reshape(g, b, r))  # covariance with the extra rows
    local, shared = _means(f, f.shared_rhs[:, None], f.local_rhs[..., None])
    local, shared = (local[..., 0] + to_local @ f.pull), shared[:, 0] + to_shared @ f.pull
    inverse = cho_solve((f.extra_root, True), jnp.eye(r))
    covariance = f.shared_inverse.T @ f.shared_inverse
    spread = (f.link.reshape(g * b, len(covariance)) @ covariance).reshape(f.link.shape)  # H Q
    between = spread @ jnp.swapaxes(f.link, 1, 2)  # H Q H'
    outward = _outward(basis, spread)  # H Q S'
    cross = turned @ (f.whitened + between @ f.whitened - outward)  # (G, B, T)
    path, control = basis.path(to_shared)
    from_rows = f.columns @ to_local + path[None] + basis.controls @ control  # (G, T, R)
    scaled = from_rows @ inverse
    variance = (jnp.swapaxes(cross, 1, 2) * f.columns).sum(axis=2) + _shared_variance(basis, covariance)
    variance = variance - (outward * f.whitened).sum(axis=1) - (scaled * from_rows).sum(axis=2)
    cross = cross[:, b - c :] - to_local[:, b - c :] @ jnp.swapaxes(scaled, 1, 2)
    fit_path, fit_control = basis.path(shared[:, None])
    fit = (f.columns @ local[..., None])[..., 0] + fit_path[:, 0][None] + (basis.controls @ fit_control)[..., 0]
    error, w = terms.residual - fit, terms.weight
    local_scaled = to_local @ inverse
    local_var = (f.root_inverse**2).sum(axis=1) + ((turned @ between) * turned).sum(axis=2)
    local_square = local**2 + local_var - (local_scaled * to_local).sum(axis=2)
    media = w[..., None] * (error[..., None] * local[:, None, b - c :] - jnp.swapaxes(cross, 1, 2))
    n = terms.noise.shape[0]
    rows = f.pull[:, None, None] * local[None, :, b - c :] - jnp.transpose(local_scaled[:, b - c :], (2, 0, 1))
    return Terms(
        weight=0.5 * jnp.where(w > 0, 1.0 / jnp.where(w > 0, w, 1.0), 0.0) - 0.5 * (error**2 + variance),
        media=media,
        residual=-w * error,
        local_var=0.5 * local_square.sum(axis=0) / terms.local_var**2,
        precision=-0.5 * (jnp.outer(shared, shared) + covariance - to_shared @ inverse @ to_shared.T),
        rows=rows,
        target=-f.pull,
        noise=0.5 * (jnp.outer(f.pull, f.pull) - inverse)[:n, :n],
    )


def _outward(basis: Basis, spread: Any) -> Any:
    """`spread` (G, B, S) times S_g', (G, B, T)."""
    p, t = basis.common.shape[1], basis.common.shape[0] if basis.shock else 0
    out = spread[..., :p] @ basis.common.T + spread[..., p + t :] @ jnp.swapaxes(basis.controls, 1, 2)
    return out + spread[..., p : p + t] if basis.shock else out


def _shared_variance(basis: Basis, covariance: Any) -> Any:
    """Variance (G, T) of the shared part of the fit."""
    path, control = basis.path(covariance)  # (T, S), (K, S)
    p, t = basis.common.shape[1], basis.common.shape[0] if basis.shock else 0
    own = (path[:, :p] * basis.common).sum(axis=1)
    if basis.shock:
        own = own + jnp.diagonal(path[:, p : p + t])
    x, mixed = basis.controls, path[:, p + t :]
    return own[None] + (x * (2 * mixed[None] + x @ control[:, p + t :])).sum(axis=2)


def log_marginal(basis: Basis) -> Callable[[Terms], Any]:
    """Function of `Terms`: log p(r, target | terms) without −½ (log det of both priors + count of r · log 2 pi)
    and without −½ R log 2 pi; its gradient is the closed form above."""

    @jax.custom_vjp
    def value(terms: Terms) -> Any:
        return _value(terms, factorise(basis, terms))

    def forward(terms: Terms) -> tuple[Any, Terms]:
        factors = factorise(basis, terms)
        return _value(terms, factors), _gradient(basis, terms, factors)

    def backward(gradient: Terms, upstream: Any) -> tuple[Terms]:
        return (jax.tree.map(lambda a: upstream * a, gradient),)

    value.defvjp(forward, backward)
    return value


def draw(basis: Basis, terms: Terms, key: Any) -> tuple[Any, Any]:
    """One exact draw given panel and extra rows: local (G, B), shared (S,), by conditioning a draw of the panel's."""
    f = factorise(basis, terms)
    k_local, k_shared, k_extra = jax.random.split(key, 3)
    g, b = f.local_rhs.shape
    n, r = terms.noise.shape[0], terms.rows.shape[0]
    shared_noise = jax.random.normal(k_shared, f.shared_rhs.shape)
    local_noise = jax.random.normal(k_local, (g, b))
    local, shared = _means(f, (f.shared_rhs + shared_noise)[:, None], (f.local_rhs + local_noise)[..., None])
    noise = jnp.zeros(r)
    if n:
        noise = noise.at[:n].set(jnp.linalg.cholesky(terms.noise) @ jax.random.normal(k_extra, (n,)))
    predicted = jnp.einsum("rgc,gc->r", terms.rows, local[:, b - terms.rows.shape[2] :, 0])
    weight = cho_solve((f.extra_root, True), terms.target + noise - predicted)
    step, shared_step = _means(f, -(f.across @ weight)[:, None], (f.half @ weight).reshape(g, b)[..., None])
    return (local + step)[..., 0], (shared + shared_step)[:, 0]
