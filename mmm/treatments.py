"""Contribution of non-media treatments (price, promotion): a control counted from the value that means none of it.

| on paper | here | dims | unit |
|---|---|---|---|
| gamma_gk | coefficient | draw, geo | relative to the level, per sd of the control |
| x0_k | `Panel.treatments` | | as supplied |
| L_g gamma_gk (x − x0) / sd_k | contribution | geo, period | KPI units, signed |
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from contracts.intervals import INTERVAL, summarise
from contracts.panel import Panel
from mmm.design import build_design, kept_controls
from mmm.effects import scale_factor
from mmm.posterior import Posterior, control_effects
from mmm.spec import ModelSpec


def treatment_effects(panel: Panel, spec: ModelSpec, posterior: Posterior) -> pd.DataFrame:
    """Rows treatment, geo (None: all), and the interval of the incremental KPI over all periods, scaled back.

    Treatments without any variation carry nothing and have no row.
    """
    design = build_design(panel, spec)
    keep, _, sd = kept_controls(panel.controls)
    names = [n for n, k in zip(panel.control_names, keep, strict=True) if k]
    gamma = control_effects(design, posterior)
    factor = scale_factor(panel, posterior)
    frames = []
    for name, baseline in panel.treatments.items():
        if name not in names:
            continue
        k = names.index(name)
        column = panel.controls[:, :, panel.control_names.index(name)]
        push = design.level * (column - baseline).sum(axis=1) / sd[k]  # (G,)
        by_geo = factor[:, None] * gamma[:, :, k] * push
        draws = np.concatenate([by_geo.sum(axis=1, keepdims=True), by_geo], axis=1)
        table = pd.DataFrame(summarise(draws))[list(INTERVAL)]
        table.insert(0, "geo", pd.Series([None, *panel.geos], dtype=object))
        table.insert(0, "treatment", name)
        frames.append(table)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["treatment", "geo", *INTERVAL])
