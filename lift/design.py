"""Market selection: every feasible set of treated geos, its power, its minimum detectable effect, its price.

| on paper | here | unit |
|---|---|---|
| s | std_error: of the readout, sum over the window | share of the treated level |
| e | effect: relative lift of the treated KPI | share |
| z | placebo statistic of a look-back, estimate / s | none |

The readout adds e · n to the estimate, so power(e) = P(|z + e n / s| > t). Where z comes from: the look-backs of the
panel's own history, all sets of one size pooled (one set's ten look-backs are too few, and the best-looking set was
lucky), mixed with a normal, and averaged over what is not known of s: sigma's own error, and how far the control factor
moves by the window, which the look-backs show. s is shrunk towards the sets' common size before anything is ranked
(lift/design_engine.py). MDE is the least |e| with the wanted power.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy import stats

from contracts.errors import ContractError
from lift.controls import MIN_PRE
from lift.design_engine import Candidates, Scores, learn_movement, score, shrink
from lift.gap import MovementPrior
from lift.gls import GlsControl
from lift.protocol import GeoTest

KINDS = ("add", "heavy_up", "go_dark", "holdback")
MAX_SETS = 2_000_000
FACTORS = 15  # quantiles that stand for a distribution
AGAINST_NOISE = 10  # sets of each duration that compete for the best at one level of noise
REACH = 60.0  # planned standard errors at which every test finds its effect


@dataclass(frozen=True, slots=True)
class DesignPanel:
    """History to plan on. No holes: drop a geo or fill it before planning."""

    geos: tuple[str, ...]
    kpi: np.ndarray  # (G, T) KPI units
    noise: np.ndarray  # (G, T) released variance, 0 where exact
    period_days: float
    spend: np.ndarray | None = None  # (G,) currency per period, for go-dark, heavy-up and holdback

    def __post_init__(self) -> None:
        if self.kpi.shape != (len(self.geos), self.kpi.shape[1]) or self.noise.shape != self.kpi.shape:
            raise ContractError(f"design panel: kpi and noise must have {len(self.geos)} rows of one length.")
        holes = ~np.isfinite(self.kpi).all(axis=1)
        if holes.any():
            raise ContractError(
                f"geo {self.geos[int(np.flatnonzero(holes)[0])]!r} has periods without a KPI; fill them or exclude it "
                "from the panel before planning."
            )


@dataclass(frozen=True, slots=True)
class DesignSpec:
    """What is asked. Hashed into the sealed record."""

    candidates: tuple[str, ...] = ()  # geos that may be treated; empty: all
    sizes: tuple[int, int] = (2, 5)  # fewest and most treated geos
    durations: tuple[int, ...] = (10, 15)  # periods
    effects: tuple[float, ...] = (0.025, 0.05, 0.075, 0.1, 0.15)  # relative lift, for the power columns
    look_backs: int = 10
    level: float = 0.95
    power: float = 0.8
    forced: tuple[str, ...] = ()  # always treated
    excluded: tuple[str, ...] = ()  # never treated and no control
    neighbours: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # no control of a treated geo beside them
    kind: str = "add"  # 'add' new spend, 'heavy_up', 'go_dark', 'holdback'
    heavy_up: float = 2.0  # spend of a treated geo during a heavy-up, times what it spends now
    cost_per_kpi: float | None = None  # currency per incremental KPI unit, to price an 'add' test at its MDE
    budget: float | None = None  # currency; dearer designs are left out
    planned_noise: float = 1.0  # released variance in the window, times that of the history (rho halved: 2)
    rows: int = 50  # rows of the ranked table
    read: int = 60  # sets of each duration that are read out before they are ranked; 0: none, all by their score

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ContractError(f"design kind must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        if not 1 <= self.sizes[0] <= self.sizes[1]:
            raise ContractError(f"design sizes must be 1 <= fewest <= most; got {self.sizes}.")
        if not self.durations or min(self.durations) < 1:
            raise ContractError(f"design durations must be whole periods >= 1; got {self.durations}.")
        if self.read < 0:
            raise ContractError(f"read must be 0 or more sets; got {self.read}.")
        if self.look_backs < 1:
            raise ContractError(f"look_backs must be at least 1; got {self.look_backs}.")
        if not 0 < self.power < 1 or not 0 < self.level < 1:
            raise ContractError(f"power and level lie between 0 and 1; got {self.power} and {self.level}.")


@dataclass(frozen=True, slots=True)
class Design:
    """The ranked table and what it rests on."""

    spec: DesignSpec
    table: pd.DataFrame  # one row per set and duration, best first
    sets: int  # how many sets were scored
    size_on_history: Mapping[int, float]  # duration -> share of look-backs that reject where nothing happened
    panel_hash: str


def _positions(names: tuple[str, ...], panel: DesignPanel, key: str) -> np.ndarray:
    unknown = [n for n in names if n not in panel.geos]
    if unknown:
        raise ContractError(
            f"design {key} names {', '.join(map(repr, unknown))}, which the panel does not hold; it holds "
            f"{', '.join(panel.geos)}."
        )
    return np.array([panel.geos.index(n) for n in names], dtype=int)


def candidate_sets(panel: DesignPanel, spec: DesignSpec) -> Candidates:
    """Every feasible set: sizes, forced and excluded geos, neighbours. Raises ContractError when there is none."""
    excluded = _positions(spec.excluded, panel, "excluded")
    forced = _positions(spec.forced, panel, "forced")
    pool = _positions(spec.candidates, panel, "candidates") if spec.candidates else np.arange(len(panel.geos))
    free = [int(g) for g in pool if g not in set(excluded) | set(forced)]
    clash = sorted(set(map(int, forced)) & set(map(int, excluded)))
    if clash:
        raise ContractError(f"geo {panel.geos[clash[0]]!r} is both forced and excluded; drop it from one of the two.")
    low, high = (max(size - len(forced), 0) for size in spec.sizes)
    count = sum(math.comb(len(free), k) for k in range(low, high + 1))
    if count > MAX_SETS:
        raise ContractError(
            f"the design would score {count:,} sets, more than {MAX_SETS:,}; name fewer candidates or smaller sizes."
        )
    chosen = [c for k in range(low, high + 1) for c in itertools.combinations(free, k) if k + len(forced) > 0]
    if not chosen:
        raise ContractError("no set of geos meets the design's sizes, forced and excluded geos; relax one of them.")
    masks = np.zeros((len(chosen), len(panel.geos)))
    for row, members in enumerate(chosen):
        masks[row, list(members)] = 1.0
    masks[:, forced] = 1.0
    beside = np.eye(len(panel.geos))
    for geo, near in spec.neighbours.items():
        beside[_positions((geo,), panel, "neighbours")[0], _positions(tuple(near), panel, "neighbours")] = 1.0
    barred = (masks @ np.maximum(beside, beside.T) > 0).astype(float)
    barred[:, excluded] = 1.0
    left = (1 - barred).sum(axis=1) >= 2
    if not left.any():
        raise ContractError("every set leaves fewer than two control geos; treat fewer geos or shorten the neighbours.")
    return Candidates(masks[left], barred[left])


def _cuts(panel: DesignPanel, spec: DesignSpec, length: int) -> list[int]:
    """Where the look-backs' histories end, latest first."""
    last = panel.kpi.shape[1] - length
    first = max(MIN_PRE, 2 * length)
    if last < first:
        raise ContractError(
            f"the history has {panel.kpi.shape[1]} periods; planning a test of {length} needs {first + length} or "
            "more. Load a longer history or plan a shorter test."
        )
    cuts = list(range(last, first - 1, -1))[: spec.look_backs]
    if len(cuts) < spec.look_backs:
        raise ContractError(
            f"the history has room for {len(cuts)} look-backs of a {length}-period test, not {spec.look_backs}; ask "
            "for fewer or load a longer history."
        )
    return cuts


@dataclass(frozen=True, slots=True)
class _Plan:
    """One duration: what the readout will know, and what look-backs say about its statistic."""

    std_error: np.ndarray  # (S,) share of level, sum over the window, shrunk
    raw_std_error: np.ndarray  # (S,) before shrinking
    level: np.ndarray  # (S,) KPI per period
    noise_share: np.ndarray  # (S,)
    latest: np.ndarray  # (S,) std_error as the latest look-back has it
    z: np.ndarray  # (S, B) placebo statistics
    pool: np.ndarray  # sorted z of all sets, mirrored
    dof: float  # about what the readout finds: half the history, since it also averages over correlations
    factors: np.ndarray  # (F,) readout's std_error over the planned one, equally likely

    def only(self, at: np.ndarray, ratio: np.ndarray) -> _Plan:
        """The sets at these positions (K,), whose std_error is `ratio` (K,) times what was planned."""
        return replace(
            self, std_error=self.std_error[at] * ratio, raw_std_error=self.raw_std_error[at] * ratio,
            level=self.level[at], noise_share=self.noise_share[at] / ratio**2, latest=self.latest[at], z=self.z[at],
        )  # fmt: skip


def _std_errors(scores: Scores, log_sigma: np.ndarray) -> np.ndarray:
    return np.sqrt(np.exp(2 * log_sigma) * scores.unit_variance + scores.slope_variance + scores.noise)


def _size_error(
    panel: DesignPanel, sets: Candidates, length: int, donors: np.ndarray, movement: MovementPrior
) -> float:
    """Sampling sd of log sigma, from how far the two halves of the history disagree about it, set by set.

    A half errs by sqrt(2) times the whole, so the difference has four times its variance. Never under the sd that
    Gaussian movement would have; a history too short to be halved has that one.
    """
    half = panel.kpi.shape[1] // 2
    gaussian = 1 / math.sqrt(2 * (panel.kpi.shape[1] - 1))
    if half < 2 * MIN_PRE or len(sets.masks) < 5:
        return gaussian
    average = panel.noise.mean(axis=1)
    logs = [
        score(
            panel.kpi[:, part],
            panel.noise[:, part],
            average,
            sets,
            half,
            length,
            panel.period_days,
            donors,
            movement,
        ).log_sigma  # fmt: skip
        for part in (slice(0, half), slice(panel.kpi.shape[1] - half, None))
    ]
    apart = logs[0] - logs[1]
    return max(float((apart - apart.mean()).std()) / 2, gaussian)


def _plan(panel: DesignPanel, spec: DesignSpec, sets: Candidates, length: int) -> _Plan:
    donors = np.flatnonzero(~np.isin(np.array(panel.geos), np.array(spec.excluded, dtype=str)))
    average = panel.noise.mean(axis=1)
    t = panel.kpi.shape[1]
    cuts = _cuts(panel, spec, length)
    then, movement = (learn_movement(panel.kpi, panel.noise, pre, panel.period_days, donors) for pre in (min(cuts), t))
    error = _size_error(panel, sets, length, donors, movement)
    z, slopes, errors = (np.empty((len(sets.masks), spec.look_backs)) for _ in range(3))
    for b, cut in enumerate(cuts):
        s = score(panel.kpi, panel.noise, average, sets, cut, length, panel.period_days, donors, then)
        errors[:, b] = _std_errors(s, shrink(s.log_sigma, error, sets.sizes)[0])
        z[:, b] = s.placebo / errors[:, b]
        slopes[:, b] = s.slope_variance
    planned = spec.planned_noise * average
    now = score(panel.kpi, panel.noise, planned, sets, t, length, panel.period_days, donors, movement)
    # How far the control factor will have moved by the window is not known yet; the look-backs say how far it does.
    now = replace(now, slope_variance=slopes.mean(axis=1))
    log_sigma, spread = shrink(now.log_sigma, error, sets.sizes)
    se = _std_errors(now, log_sigma)
    own = (se**2 - now.slope_variance)[:, None]
    factors = factors_of(np.sqrt(own + slopes) / se[:, None], spread)
    pool = np.sort(np.abs(z[np.isfinite(z)]))
    return _Plan(
        std_error=se, raw_std_error=_std_errors(now, now.log_sigma), level=now.level, noise_share=now.noise / se**2,
        latest=errors[:, 0], z=z, pool=np.concatenate([-pool[::-1], pool]),  # a set and its mirror image are alike
        dof=(t - 1) / 2, factors=factors,
    )  # fmt: skip


def _read(panel: DesignPanel, sets: Candidates, plan: _Plan, length: int, at: np.ndarray) -> np.ndarray:
    """(K,) the std_error that the readout will find over the planned one, for the sets at these positions; NaN where it
    would refuse them.

    All sets are scored with the movement that is common to their size. Of those, the sets whose own movement is slower
    look better than they will be read, and are chosen for it. So each is read out on the latest look-back, and again
    one window earlier: what the two disagree about is luck, and is shrunk away as `shrink` does.
    """
    t = panel.kpi.shape[1]
    cuts = [t - length, *([t - 2 * length] if t - 2 * length >= max(MIN_PRE, 2 * length) else [])]
    logs = np.full((len(cuts), len(at)), np.nan)
    for i, s in enumerate(at):
        treated, donors = np.flatnonzero(sets.masks[s] > 0), np.flatnonzero(sets.barred[s] == 0)
        for c, cut in enumerate(cuts):
            span = np.arange(cut), np.arange(cut, cut + length)
            test = GeoTest("plan", panel.kpi, panel.noise, treated, donors, *span, panel.period_days)
            with contextlib.suppress(ContractError):  # a set that cannot be read is no design
                logs[c, i] = np.log(GlsControl()(test).std_error / (plan.latest[s] * plan.level[s]))
    apart = (logs[0] - logs[-1])[np.isfinite(logs[0] - logs[-1])]
    error = float(apart.std()) / math.sqrt(2) if len(apart) else 0.0
    planned, out = np.log(plan.std_error), logs[0]
    for size in np.unique(sets.sizes[at]):
        here, all_of_it = sets.sizes[at] == size, planned[sets.sizes == size]
        luck = error**2 / (error**2 + all_of_it.var()) if error > 0 else 0.0
        out[here] += luck * (all_of_it.mean() - planned[at][here] - out[here])
    return np.exp(out)


def factors_of(moved: np.ndarray, spread: float) -> np.ndarray:
    """(F,) equally likely factors: how the look-backs' own std_errors (S, B) scatter around the planned one, by what is
    not known of sigma (log-normal, sd `spread`)."""
    middle = (np.arange(FACTORS) + 0.5) / FACTORS
    scatter = np.quantile(moved[np.isfinite(moved)], middle)
    return np.outer(scatter, np.exp(spread * stats.norm.ppf(middle))).ravel()


def power_of(shift: np.ndarray, pool: np.ndarray, limit: float, factors: np.ndarray) -> np.ndarray:
    """Probability that |z + shift / factor| > limit, the shape of `shift` (>= 0, planned standard errors).

    z is half the sorted, symmetric `pool` (n,) and half a standard normal; `factors` (F,) are the equally likely ratios
    of the readout's standard error to the planned one. Read off a curve of steps of 0.01.
    """
    grid = np.arange(0.0, REACH, 0.01)
    inside = np.searchsorted(pool, limit - grid, side="right") - np.searchsorted(pool, -limit - grid)
    model = stats.norm.sf(limit - grid) + stats.norm.cdf(-limit - grid)
    exact = 0.5 * (1 - inside / len(pool)) + 0.5 * model
    curve = np.mean([np.interp(grid / f, grid, exact) for f in factors], axis=0)
    return np.interp(shift, grid, curve)


def _power(plan: _Plan, spec: DesignSpec, effects: np.ndarray, length: int) -> np.ndarray:
    """(S, E) probability that an effect e is found."""
    limit = float(stats.t(plan.dof).ppf(0.5 + spec.level / 2))
    return power_of(np.abs(effects)[None, :] * length / plan.std_error[:, None], plan.pool, limit, plan.factors)


def _needed_shift(plan: _Plan, spec: DesignSpec) -> float:
    """e · n / s at which the power is the one wanted."""
    grid = np.linspace(0.5, 12, 2301)
    unit = replace(plan, std_error=np.ones(1))
    power = _power(unit, spec, grid, 1)[0]
    reached = np.flatnonzero(power >= spec.power)
    if not len(reached):
        raise ContractError(
            f"no effect reaches a power of {spec.power:g} on this history: its look-backs are far wilder than the "
            "readout expects. Look at the panel for breaks, or exclude the geos that cause them."
        )
    return float(grid[reached[0]])


def _spend_change(
    panel: DesignPanel, spec: DesignSpec, sets: Candidates, mde: np.ndarray, plan: _Plan, length: int
) -> np.ndarray:
    """Signed spend change (S,) that the test makes, currency; NaN where nothing says what it costs."""
    if spec.kind == "add":
        if spec.cost_per_kpi is None:
            return np.full(len(mde), np.nan)
        return spec.cost_per_kpi * mde * plan.level * length
    if panel.spend is None:
        raise ContractError(f"a {spec.kind} test changes present spend; give the panel's spend per geo and period.")
    spend = sets.masks @ panel.spend * length
    if not (spend > 0).all():
        raise ContractError(
            f"a {spec.kind} test needs present spend in every treated geo, and some candidate spends nothing; take it "
            "out of the candidates."
        )
    return spend * (spec.heavy_up - 1) if spec.kind == "heavy_up" else -spend


def _rows(panel: DesignPanel, spec: DesignSpec, sets: Candidates, plan: _Plan, length: int) -> pd.DataFrame:
    needed = _needed_shift(plan, spec)
    mde = needed * plan.std_error / length
    limit = float(stats.t(plan.dof).ppf(0.5 + spec.level / 2))
    volume = plan.level * length
    money = _spend_change(panel, spec, sets, mde, plan, length)
    table = pd.DataFrame(
        {
            "set": np.arange(len(mde)), "treated_geos": sets.sizes, "duration": length, "mde": mde,
            "mde_uncorrected": needed * plan.raw_std_error / length, "mde_kpi": mde * volume,
            "std_error_kpi": plan.std_error * plan.level, "volume": volume,
            "share_of_kpi": plan.level / panel.kpi.mean(axis=1).sum(), "noise_share": plan.noise_share,
            "spend_change": money,
            "iroas_half_width": np.where(money != 0, limit * plan.std_error * plan.level / np.abs(money), np.nan),
            "controls": (1 - sets.barred).sum(axis=1).astype(int),
        }
    )  # fmt: skip
    effects = np.array(spec.effects)
    power = _power(plan, spec, effects, length)
    found = np.abs(plan.z[:, :, None] + effects * length / plan.std_error[:, None, None]) > limit
    for k, effect in enumerate(effects):
        table[f"power_{effect:g}"] = power[:, k]
        table[f"look_backs_{effect:g}"] = found[:, :, k].mean(axis=1)
    table["false_positives"] = (np.abs(plan.z) > limit).mean(axis=1)
    return table


def market_selection(panel: DesignPanel, spec: DesignSpec) -> Design:
    """Scores every feasible set at every duration and ranks them by MDE, then by the spend they move.

    The best `spec.read` of each duration are read out on the latest look-backs and ranked by what the readout says; the
    others are not listed.

    Raises ContractError for unknown geos, no feasible set, a history too short for the look-backs, or a kind of test
    whose spend is unknown.
    """
    sets = candidate_sets(panel, spec)
    parts, sizes = [], {}
    for length in spec.durations:
        plan = _plan(panel, spec, sets, length)
        limit = float(stats.t(plan.dof).ppf(0.5 + spec.level / 2))
        sizes[length] = float((np.abs(plan.z) > limit).mean())
        first = _affordable(spec, _rows(panel, spec, sets, plan, length))
        if spec.read == 0:
            parts.append(first)
            continue
        at = first.nsmallest(spec.read, ["mde", "volume"])["set"].to_numpy()
        ratio = _read(panel, sets, plan, length, at)
        at, ratio = at[np.isfinite(ratio)], ratio[np.isfinite(ratio)]
        chosen = Candidates(sets.masks[at], sets.barred[at])
        read = _rows(panel, spec, chosen, plan.only(at, ratio), length).assign(set=at)
        parts.append(_affordable(spec, read))
    table = pd.concat(parts)
    if table.empty:
        raise ContractError(
            f"no design costs {spec.budget:g} or less at its detectable effect; raise the budget or the effect."
        )
    table = table.sort_values(["mde", "volume"]).head(spec.rows).reset_index(drop=True)
    names = np.array(panel.geos)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    table.insert(1, "geos", [";".join(names[sets.masks[s] > 0]) for s in table["set"]])
    table.insert(2, "control_geos", [";".join(names[sets.barred[s] == 0]) for s in table["set"]])
    return Design(spec, table.drop(columns="set"), len(sets.masks), sizes, _hash(panel))


def _affordable(spec: DesignSpec, rows: pd.DataFrame) -> pd.DataFrame:
    return rows if spec.budget is None else rows[~(rows["spend_change"].abs() > spec.budget)]


def _hash(panel: DesignPanel) -> str:
    from hashlib import sha256

    digest = sha256("\x1f".join(panel.geos).encode())
    for array in (panel.kpi, panel.noise):
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()


def mde_against_noise(panel: DesignPanel, spec: DesignSpec, factors: tuple[float, ...]) -> pd.DataFrame:
    """MDE of the best set of each duration where the window's released variance is `factors` times the history's.

    Released variance is inversely proportional to rho: a factor of 2 is half the rho. Columns: noise_factor, duration,
    geos, mde, noise_share. Raises ContractError as `market_selection`, and where the panel carries no released noise.
    """
    if not panel.noise.any():
        raise ContractError("the panel's KPI is exact (no released variance), so its MDE does not depend on epsilon.")
    rows = []
    for factor in factors:
        if not factor > 0:
            raise ContractError(f"noise factors must be > 0; got {factor}.")
        asked = replace(spec, planned_noise=factor, read=AGAINST_NOISE, rows=AGAINST_NOISE * len(spec.durations))
        table = market_selection(panel, asked).table
        best = table.loc[table.groupby("duration")["mde"].idxmin(), ["duration", "geos", "mde", "noise_share"]]
        rows.append(best.assign(noise_factor=factor))
    return pd.concat(rows, ignore_index=True)[["noise_factor", "duration", "geos", "mde", "noise_share"]]
