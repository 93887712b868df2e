"""Small panels with known answers, drawn from the model's own family or close to it."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from contracts.panel import Panel
from mmm.lifts import LiftPart, LiftTerm


def make_panel(
    geos: int = 4,
    periods: int = 60,
    channels: int = 3,
    seed: int = 0,
    *,
    noise_sd: float = 5.0,
    residual_sd: float = 0.08,
    shares: tuple[float, ...] = (0.10, 0.06, 0.03),
    controls: int = 1,
    revenue: float | None = None,
) -> tuple[Panel, np.ndarray]:
    """A panel and its true incremental KPI (G, T, C)."""
    rng = np.random.default_rng(seed)
    population = rng.uniform(0.5, 3.0, geos) * 10_000
    base = population * 0.02
    weeks = tuple(date(2024, 1, 1) + timedelta(weeks=i) for i in range(periods))
    t = np.arange(periods)
    season = 1 + 0.15 * np.sin(2 * np.pi * t / 52.18) + 0.002 * t
    on = rng.random((geos, periods, channels)) < 0.6
    spend = on * rng.gamma(4.0, 0.25, (geos, periods, channels)) * population[:, None, None] * 0.05
    per_head = spend / population[:, None, None]
    stock = np.zeros_like(per_head)
    retention = np.linspace(0.2, 0.6, channels)
    for i in range(periods):
        stock[:, i] = per_head[:, i] * (1 - retention) + (stock[:, i - 1] * retention if i else 0)
    shape = population[:, None, None] * stock / (stock + 0.06)
    expected_base = base[:, None] * season
    z = rng.normal(size=(geos, periods, controls))
    level = expected_base.sum()
    effect = shape / shape.sum(axis=(0, 1)) * np.array(shares[:channels]) * level
    mean = expected_base * (1 + 0.05 * z.sum(axis=2)) + effect.sum(axis=2)
    kpi = mean + residual_sd * base[:, None] * rng.normal(size=mean.shape) + noise_sd * rng.normal(size=mean.shape)
    panel = Panel(
        geos=tuple(f"g{i}" for i in range(geos)),
        weeks=weeks,
        channels=tuple(f"c{i}" for i in range(channels)),
        kpi=kpi,
        kpi_variance=np.full(kpi.shape, noise_sd**2),
        media=spend,
        spend=spend,
        population=population,
        controls=z,
        control_names=tuple(f"z{i}" for i in range(controls)),
        organic=np.zeros((geos, periods, 0)),
        organic_names=(),
        revenue_per_kpi=None if revenue is None else np.full(kpi.shape, revenue),
        kpi_name="conversions",
        currency="EUR",
        period_days=7,
        scale_back=(1.0, 0.0),
        user_level=True,
        evidence_ids=("panel:test",),
    )
    return panel, effect


def lift_term(
    panel: Panel,
    name: str = "t",
    channel: int = 0,
    geos: tuple[int, ...] = (0, 2),
    mean: float = 40.0,
    se: float = 15.0,
    correlation: tuple[float, ...] = (1.0,),
) -> LiftTerm:
    """A go-dark test of six periods as the model sees it, its counterfactual the other way round (spend to nothing)."""
    at = np.array(geos)
    window = np.arange(30, 36)
    factual = panel.media[at, :, channel]
    counterfactual = factual.copy()
    counterfactual[:, window] = 0.0
    part = LiftPart(channel, factual, counterfactual)
    return LiftTerm(name, (part,), at, window, 0.8, mean, se, 9.0, np.array(correlation), ("experiment:t",))
