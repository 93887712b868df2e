"""The pool's draws as rows: outcomes with their return and where they come from, and what each credit is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from contracts.intervals import INTERVAL, summarise
from reconcile.conflicts import Conflict
from reconcile.inputs import Period, PoolInputs
from reconcile.prepare import Prepared
from reconcile.sampler import Sampled

NO_MODEL = ""  # name of the credit model in rows of a pool without any credit
FACTOR_COLUMNS = (
    "channel", "model", "period_start", "period_end", *INTERVAL, "incremental_kpi", "incremental_p05",
    "incremental_p95", "credited", "weight_lift", "weight_mmm", "weight_credit", "weight_family", "flag",
)  # fmt: skip
OUTCOME_COLUMNS = (
    "channel", "period_start", "period_end", *INTERVAL, "spend", "iroas", "iroas_p10", "iroas_p50", "iroas_p90",
    "mroas", "mroas_p10", "mroas_p50", "mroas_p90", "weight_lift", "weight_mmm", "weight_credit", "weight_family",
    "borrowed", "severity", "flag",
)  # fmt: skip
BORROWED_ABOVE = 0.25  # share of the precision


def spans(inputs: PoolInputs) -> tuple[Period, ...]:
    """The whole stretch, then its periods; the whole alone where it is one period."""
    whole = (inputs.periods[0][0], inputs.periods[-1][1])
    return (whole, *inputs.periods) if len(inputs.periods) > 1 else (whole,)


def _draws(drawn: Sampled, c: int, n: int) -> np.ndarray:
    """Draws (S,) of the outcome of channel c over span n (0: the whole)."""
    return np.exp(drawn.level[:, c] if n == 0 else drawn.level[:, c] + drawn.share[:, c, n - 1])


def _shares(share: Mapping[str, np.ndarray], c: int, n: int) -> dict[str, float]:
    """Weights of one channel and span; what no source holds (the pool's own priors) counts with the family."""
    own = {f"weight_{s}": float(share[s][c, n]) for s in ("lift", "mmm", "credit")}
    return own | {"weight_family": float(share["family"][c, n] + share["prior"][c, n])}


def reconciled_rows(
    inputs: PoolInputs, drawn: Sampled, share: Mapping[str, np.ndarray], found: Sequence[Conflict]
) -> pd.DataFrame:
    """One row per channel and span. iROAS is outcome per unit of spend, mROAS that of the next unit: x (1 + kappa)."""
    rows = []
    for c, channel in enumerate(inputs.channels):
        flagged = [f for f in found if f.channel == channel and f.severity]
        worst = max((f.severity for f in flagged), key=("", "amber", "red").index, default="")
        for n, (first, last) in enumerate(spans(inputs)):
            outcome = _draws(drawn, c, n)
            spend = (
                np.nan if inputs.spend is None else float(inputs.spend[c].sum() if n == 0 else inputs.spend[c, n - 1])
            )
            row: dict[str, Any] = {"channel": channel, "period_start": first, "period_end": last, "spend": spend}
            row |= summarise(outcome) | _shares(share, c, n)
            for name, factor in (("iroas", np.ones(len(outcome))), ("mroas", 1.0 + drawn.kappa[:, c])):
                row |= _ratio(name, outcome * factor, spend)
            row["borrowed"] = row["weight_family"] > BORROWED_ABOVE
            rows.append(row | {"severity": worst, "flag": "; ".join(f.text for f in flagged)})
    return pd.DataFrame(rows, columns=list(OUTCOME_COLUMNS))


def _ratio(name: str, outcome: np.ndarray, spend: float) -> dict[str, float]:
    if not spend > 0:
        return dict.fromkeys((name, f"{name}_p10", f"{name}_p50", f"{name}_p90"), np.nan)
    low, middle, high = np.quantile(outcome / spend, [0.1, 0.5, 0.9])
    return {name: float((outcome / spend).mean()), f"{name}_p10": low, f"{name}_p50": middle, f"{name}_p90": high}


def factor_rows(
    inputs: PoolInputs, data: Prepared, drawn: Sampled, share: Mapping[str, np.ndarray], found: Sequence[Conflict],
    seed: int,
) -> pd.DataFrame:  # fmt: skip
    """One row per channel, credit model and span: true ÷ credited, and everything that a reader needs beside it."""
    credit = _credit_draws(data, drawn, np.random.default_rng([seed, 2]))
    rows = []
    for c, channel in enumerate(inputs.channels):
        for j, model in enumerate(data.models or (NO_MODEL,)):
            source = data.sources[int(data.arrays.source[:, j].argmax())] if data.models else ""
            mine = [f.text for f in found if f.channel == channel and f.severity and f.source != "credit"]
            mine += [
                f.text
                for f in found
                if f.channel == channel and f.severity and f.source == "credit" and f.subject == source
            ]
            for n, (first, last) in enumerate(spans(inputs)):
                outcome = _draws(drawn, c, n)
                low, high = np.quantile(outcome, [0.05, 0.95])
                figures, credited, note = _factor(data, credit, outcome, j, c, n)
                rows.append(
                    {"channel": channel, "model": model, "period_start": first, "period_end": last}
                    | figures | _shares(share, c, n)
                    | {"incremental_kpi": outcome.mean(), "incremental_p05": low, "incremental_p95": high,
                       "credited": credited, "flag": "; ".join([*mine, *([note] if note else [])])}
                )  # fmt: skip
    return pd.DataFrame(rows, columns=list(FACTOR_COLUMNS))


def _credit_draws(data: Prepared, drawn: Sampled, rng: np.random.Generator) -> np.ndarray:
    """Draws (S, J, C, T) of the credit without its noise: normal on the log scale between what was released and what
    the model expects, each by its precision; NaN where no factor may be printed."""
    arrays = data.arrays
    seen = data.printed
    credit = np.where(seen, arrays.credit, 1.0)
    rough2 = (np.where(seen, arrays.credit_sd, 1.0) / credit) ** 2
    spread2 = ((drawn.shock**2 + drawn.own**2) @ arrays.source)[:, :, None, None]
    variance = 1.0 / (1.0 / rough2 + 1.0 / spread2)
    mean = variance * (np.log(credit) / rough2 + drawn.log_credit / spread2)
    draws = np.exp(mean + np.sqrt(variance) * rng.standard_normal(mean.shape))
    return np.where(seen, draws, np.nan)


def _factor(
    data: Prepared, credit: np.ndarray, outcome: np.ndarray, j: int, c: int, n: int
) -> tuple[dict[str, float], float, str]:
    """Interval of true ÷ credited, the credit, and why the factor is not printed."""
    empty = dict.fromkeys(INTERVAL, np.nan)
    at = slice(None) if n == 0 else slice(n - 1, n)
    if not data.models or not data.recorded[j, c, at].all():
        missing = not data.models or not data.recorded[j, c, at].any()
        why = "no credit is recorded for this channel, so there is no factor"
        return empty, np.nan, why if missing else "credit is missing in part of the stretch, so there is no factor"
    credited = float(data.arrays.credit[j, c, at].sum())
    g = int(data.arrays.source[:, j].argmax())
    if not data.tracked[g, c]:
        return (
            empty,
            credited,
            "the channel is not tracked: its credit cannot be told from noise, so no factor is printed",
        )
    total = np.nansum(credit[:, j, c, at], axis=1) + float(
        np.where(data.printed[j, c, at], 0.0, data.arrays.credit[j, c, at]).sum()
    )
    if n > 0 and not data.printed[j, c, n - 1] or not (total > 0).all():
        return empty, credited, "the credit's 90 % interval holds 0 or less, so no factor is printed"
    return summarise(outcome / total), credited, ""
