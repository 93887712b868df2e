"""Draws of a fitted model, with everything needed to compute effects later; nothing per cell is stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mmm.design import Design
from mmm.media import Params

PARAM_FIELDS = Params._fields


@dataclass(frozen=True, slots=True)
class Posterior:
    """Draws with leading axes (chain, draw). `sampled` holds the unconstrained-prior sites that NUTS moved."""

    channels: tuple[str, ...]
    params: Mapping[str, np.ndarray]  # names of `Params`
    sampled: Mapping[str, np.ndarray]
    local: np.ndarray  # (chain, draw, G, B) own coefficients, relative media deviations last
    shared: np.ndarray  # (chain, draw, S)
    divergences: int
    accept: float  # mean acceptance probability
    seed: int
    spec_hash: str
    energy: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))  # (chain, draw); empty in older files

    @property
    def draws(self) -> int:
        """All draws over the chains."""
        return int(self.local.shape[0] * self.local.shape[1])

    def flat(self, name: str) -> np.ndarray:
        """One parameter with chains joined, shape (D, ...)."""
        value = self.params[name]
        return value.reshape(self.draws, *value.shape[2:])

    def deviations(self) -> np.ndarray:
        """Relative geo deviations d_gc = geo_spread_c z_gc, shape (D, G, C); spend-weighted mean 0."""
        z = self.local.reshape(self.draws, *self.local.shape[2:])[:, :, -len(self.channels) :]
        return self.flat("geo_spread")[:, None, :] * z

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for `numpy.savez`; no pickling."""
        out = {f"params.{k}": v for k, v in self.params.items()} | {f"sampled.{k}": v for k, v in self.sampled.items()}
        meta = {
            f.name: np.array(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name not in ("params", "sampled")
        }
        return out | meta

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> Posterior:
        """Inverse of `to_arrays`."""
        groups: dict[str, dict[str, np.ndarray]] = {"params": {}, "sampled": {}}
        for key, value in arrays.items():
            head, _, name = key.partition(".")
            if name:
                groups[head][name] = np.asarray(value)
        return Posterior(
            channels=tuple(str(c) for c in arrays["channels"]),
            params=groups["params"],
            sampled=groups["sampled"],
            local=np.asarray(arrays["local"]),
            shared=np.asarray(arrays["shared"]),
            divergences=int(arrays["divergences"]),
            accept=float(arrays["accept"]),
            seed=int(arrays["seed"]),
            spec_hash=str(arrays["spec_hash"]),
            energy=np.asarray(arrays["energy"]) if "energy" in arrays else np.zeros((0, 0)),
        )


def control_effects(design: Design, posterior: Posterior) -> np.ndarray:
    """Coefficients of the controls that vary (D, G, K), the geo's own part included."""
    k, q = design.controls.shape[2], design.local.shape[1]
    shared = posterior.shared.reshape(posterior.draws, -1)
    common = shared[:, None, shared.shape[1] - k :]  # the controls come last
    if not design.own_controls:
        return np.broadcast_to(common, (posterior.draws, design.shape[0], k))
    return common + posterior.local.reshape(posterior.draws, *posterior.local.shape[2:])[:, :, q : q + k]
