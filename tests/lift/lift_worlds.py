"""Small worlds for the lift tests: geo panels and trial totals with known truth, apart from the code."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from contracts.evidence import Experiment
from contracts.panel import Panel
from contracts.release import Release
from contracts.trials import TrialDesign, component_name

START = date(2024, 1, 1)


def panel(
    kpi: np.ndarray, variance: np.ndarray | None = None, spend: np.ndarray | None = None, period_days: int = 7
) -> Panel:
    g, t = kpi.shape
    money = np.ones((g, t, 1)) if spend is None else spend[:, :, None]
    return Panel(
        geos=tuple(f"g{i:02d}" for i in range(g)),
        weeks=tuple(START + timedelta(days=period_days * i) for i in range(t)),
        channels=("tv",),
        kpi=kpi,
        kpi_variance=np.zeros((g, t)) if variance is None else variance,
        media=money,
        spend=money,
        population=np.ones(g),
        controls=np.zeros((g, t, 0)),
        control_names=(),
        organic=np.zeros((g, t, 0)),
        organic_names=(),
        revenue_per_kpi=None,
        kpi_name="conversions",
        currency="USD",
        period_days=period_days,
        scale_back=(1.0, 0.0),
        user_level=True,
        evidence_ids=("release:1",),
    )


def geo_test(
    p: Panel, treated: int | tuple[str, ...], first: int, last: int, name: str = "dark", delta: float | None = None
) -> Experiment:
    """A test over the periods first..last of the panel."""
    geos = p.geos[:treated] if isinstance(treated, int) else treated
    end = p.weeks[last] + timedelta(days=p.period_days - 1)
    return Experiment(name, "geo", "tv", p.weeks[first], end, geos, delta)


def ar1(rng: np.random.Generator, shape: tuple[int, ...], phi: float, sd: float | None = None) -> np.ndarray:
    """AR(1) along the last axis, stationary; innovations of sd 1, or stationary sd `sd`."""
    shocks = rng.standard_normal(shape)
    out = np.empty(shape)
    out[..., 0] = shocks[..., 0] / np.sqrt(1 - phi**2)
    for t in range(1, shape[-1]):
        out[..., t] = phi * out[..., t - 1] + shocks[..., t]
    return out if sd is None else out * sd * np.sqrt(1 - phi**2)


def recast_a1(rng: np.random.Generator, pre: int = 90, post: int = 15) -> np.ndarray:
    """World A1 of the published simulation study: one treated geo near the median, 20 controls, daily."""
    n, t = 21, np.arange(pre + post)
    base = 4000 * np.exp(0.6 * rng.standard_normal(n) - 0.18)
    week = np.array([-1, -0.5, 0, 0.2, 0.8, 1, 0.5])[t % 7]
    scale = np.sqrt(base / base.mean())[:, None]
    kpi = base[:, None] * (1 + 0.001 * t) * (1 + 0.1 * week) * np.exp(0.2 * scale * ar1(rng, (n, len(t)), 0.3))
    middle = int(np.argmin(np.abs(base - np.median(base))))
    return kpi[[middle, *(i for i in range(n) if i != middle)]]


def weekly(
    rng: np.random.Generator,
    *,
    geos: int = 12,
    pre: int = 40,
    post: int = 8,
    phi: float = 0.4,
    own_sd: float = 0.04,
    noise: tuple[float, float] = (30.0, 30.0),
) -> tuple[np.ndarray, np.ndarray]:
    """Poisson counts with a seasonal common factor, AR(1) per geo, and Gaussian released noise (pre sd, window sd)."""
    t = np.arange(pre + post)
    base = 600 * np.exp(0.7 * rng.standard_normal(geos))
    season = 1 + 0.15 * np.sin(2 * np.pi * (t / 52 + rng.uniform()))
    common = (1 + 0.002 * t) * season * np.exp(ar1(rng, (len(t),), 0.5, 0.05))
    mean = base[:, None] * common * np.exp(ar1(rng, (geos, len(t)), phi, own_sd))
    sd = np.where(t < pre, noise[0], noise[1])
    kpi = rng.poisson(mean) + rng.standard_normal((geos, len(t))) * sd
    return kpi.astype(float), np.broadcast_to(sd**2, kpi.shape).copy()


def release_of(table: pd.DataFrame, measure: Any = "trials", release_id: str = "trials-1") -> Release:
    return Release(
        release_id=release_id,
        measure=measure,
        block="quarter-2024-01-01",
        block_start=date(2024, 1, 1),
        block_end=date(2024, 3, 31),
        table=table,
        vectors=(),
        rho=0.1,
        epsilon=1.0,
        delta=1e-6,
        metadata={},
    )


def trial_table(people: pd.DataFrame, noise: dict[str, float] | None = None, name: str = "mail") -> pd.DataFrame:
    """Exact totals of columns arm, visits, conversions, revenue; `noise`: sd by component, not drawn."""
    rows = []
    for arm, part in people.groupby("arm"):
        values = {"n": float(len(part)), "conversions*revenue": float((part["conversions"] * part["revenue"]).sum())}
        for metric in ("visits", "conversions", "revenue"):
            values[metric] = float(part[metric].sum())
            values[f"{metric}*{metric}"] = float((part[metric] ** 2).sum())
        for component, value in values.items():
            sd = (noise or {}).get(component, 0.0)
            rows.append(("trial", name, str(arm), component, value, sd**2))
    return pd.DataFrame(rows, columns=["vector", "experiment", "arm", "component", "value", "variance"])


def declared_release(
    people: pd.DataFrame, design: TrialDesign, noise: float = 0.0, name: str = "mail", look: int = 0
) -> Release:
    """Exact totals of a declared test from one row a person: arm, stratum, a column per factor; stated noise sd."""
    components = design.look_components() if look else design.components()
    strata = ("",) if look or not design.strata else design.strata
    rows = []
    for arm, part in people.groupby("arm"):
        for stratum in strata:
            cell = part[part["stratum"] == stratum] if stratum else part
            for c in components:
                value = float(np.prod([cell[f].to_numpy(float) for f in c], axis=0).sum()) if c else float(len(cell))
                rows.append(("trial", name, str(arm), stratum, component_name(c), value, noise**2))
    columns = ["vector", "experiment", "arm", "stratum", "component", "value", "variance"]
    table = pd.DataFrame(rows, columns=columns)
    spec = {"design": design.declared()} | ({"look": look} if look else {})
    out = release_of(table if len(strata) > 1 else table.drop(columns="stratum"), release_id=f"trials-{name}-{look}")
    return replace(out, metadata={"spec": spec}, block_end=START + timedelta(days=7 * max(look, 1) - 1))
