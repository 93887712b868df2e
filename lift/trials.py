"""Lift of a user-randomised test from its released totals alone, read as it was declared before the release.

| on paper | here | unit |
|---|---|---|
| n[a,s] | component 'n' of arm a in stratum s | people |
| S[a,s] | component METRIC | metric units |
| d | weighted mean over strata of S[T,s]/n[T,s] − S[C,s]/n[C,s], weights n[T,s] + n[C,s] | metric units per person |
| D = n[T] d | incremental outcome of the treated arm | metric units |
| D − theta D(x) | the same less what a value x from before the test explains (CUPED) | metric units |

Every figure of a test, of all its arms and metrics, is one smooth function of its cells, so that their joint
covariance is one matrix (lift/totals.py): arms share their control arm, metrics share people. Expected value: everyone
randomised is counted, reached or not (intention to treat). The published reading is the one that the release's own
declaration names (contracts/trials.py); the others stand beside it. Decisions 0021, 0150, 0154.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftEstimate
from contracts.readout import CheckLine
from contracts.release import Release
from contracts.trials import TrialDesign, design_of
from lift.arms import (
    complier_effect,
    exposure_balance,
    incremental_of_exposed,
    over_strata,
    ratio,
    uncertain,
    without_before,
)
from lift.geo import t_columns
from lift.several import ArmEffects, arm_effects
from lift.totals import Estimate, Joint, Points, Totals, added, joint, read_cell

METRICS = ("conversions", "revenue", "visits")
MIN_PEOPLE = 50
BALANCE_LIMIT = 0.001  # as of the sample ratio: a fault of the set-up, not a finding
Arms = Mapping[str, tuple[Totals, ...]]  # arm -> its strata, or one without a name


@dataclass(frozen=True, slots=True)
class TrialReading:
    """What one released test shows."""

    estimates: tuple[LiftEstimate, ...]  # published: one per treated arm and metric, incremental outcome
    covariance: np.ndarray  # (K, K) of them, metric units²
    beside: tuple[LiftEstimate, ...]  # other readings of the same people, never pooled with the published ones
    families: Mapping[str, ArmEffects]  # metric -> its arms together, where there are several
    checks: tuple[CheckLine, ...]


def declared(release: Release) -> TrialDesign:
    """What the release was declared to hold."""
    return design_of(release.metadata.get("spec", {}).get("design"))


def read_arms(experiment: Experiment, release: Release) -> dict[str, tuple[Totals, ...]]:
    """Arms of one experiment in a trials release. Raises ContractError when there is none, or no control arm."""
    if release.measure != "trials":
        raise ContractError(f"release {release.release_id!r} holds {release.measure!r}; a user test reads 'trials'.")
    rows = release.table[release.table["experiment"] == experiment.name]
    rows = rows if "stratum" in rows else rows.assign(stratum="")
    arms = {
        str(name): tuple(
            Totals(
                str(name), tuple(map(str, cell["component"])), cell["value"].to_numpy(float),
                cell["variance"].to_numpy(float), str(stratum),
            )
            for stratum, cell in part.groupby("stratum", sort=True)
        )
        for name, part in rows.groupby("arm", sort=True)
    }  # fmt: skip
    if experiment.control_arm not in arms:
        found = ", ".join(map(repr, arms)) or "no arm at all"
        raise ContractError(
            f"experiment {experiment.name!r} has no arm {experiment.control_arm!r} in release {release.release_id!r}, "
            f"which holds {found}; name the reference arm with control_arm in plumb.toml."
        )
    if len(arms) < 2:
        raise ContractError(f"experiment {experiment.name!r} has a control arm only; a lift needs a treated arm too.")
    for cells in arms.values():
        _check_people(experiment.name, added(cells))
    return arms


def _check_people(experiment: str, arm: Totals) -> None:
    where = f"{arm.arm!r} of experiment {experiment!r}" + (f" in stratum {arm.stratum!r}" if arm.stratum else "")
    if "n" not in arm.components:
        raise ContractError(f"arm {where} has no component 'n' in its release.")
    impossible = np.flatnonzero(arm.value < -8 * np.sqrt(arm.variance))
    if len(impossible):
        i = int(impossible[0])
        raise ContractError(
            f"arm {where} has a total of {arm.value[i]:.4g} for {arm.components[i]!r}, more than 8 sd of its noise "
            "below zero; no people give that, so check where the totals come from."
        )
    n, noise = (float(x) for x in arm.of("n"))
    least = max(MIN_PEOPLE, 5 * math.sqrt(noise))
    if n < least:
        raise ContractError(
            f"arm {where} has a released size of {n:.0f}, under the {least:.0f} that its noise allows to be read; give "
            "the trials more rho, or a larger arm."
        )


def released_metrics(experiment: Experiment, release: Release) -> tuple[str, ...]:
    """Metrics that the release carries with their squares, in the order of `METRICS`. Raises ContractError for none."""
    components = set(release.table.loc[release.table["experiment"] == experiment.name, "component"])
    found = tuple(m for m in METRICS if m in components and f"{m}*{m}" in components)
    if not found:
        raise ContractError(
            f"release {release.release_id!r} holds no metric of experiment {experiment.name!r}; it needs at least "
            f"one of {', '.join(METRICS)} with its square. Check the experiment's name in the assignments."
        )
    return found


@dataclass(frozen=True, slots=True)
class _Test:
    """One test with what every reading of it needs."""

    experiment: Experiment
    release: Release
    design: TrialDesign
    arms: Arms
    metrics: tuple[str, ...]
    spend_delta: float | None

    @property
    def treated(self) -> tuple[str, ...]:
        return tuple(a for a in self.arms if a != self.experiment.control_arm)

    def whole(self, arm: str) -> Totals:
        """All strata of an arm together."""
        return added(self.arms[arm])

    @property
    def control(self) -> Totals:
        return self.whole(self.experiment.control_arm)

    def people(self, arm: str) -> float:
        return float(self.whole(arm).of("n")[0])

    def estimate(self, name: str, arm: str, metric: str, found: Estimate, *, paid: bool = True) -> LiftEstimate:
        """A row from a figure of this test; `paid`: the figure is an outcome that the arm's spend bought."""
        mean, se, dof = float(found.value), float(found.std_error), float(found.dof)
        return self.row(name, arm, metric, mean, se, dof, float(found.noise_share), t_columns(mean, se, dof), paid)

    def row(
        self, name: str, arm: str, metric: str, mean: float, se: float, dof: float, noise: float,
        columns: Mapping[str, float], paid: bool,
    ) -> LiftEstimate:  # fmt: skip
        e, spent = self.experiment, self.spend_delta if paid else None
        share = self.people(arm) / sum(self.people(a) for a in self.treated)
        return LiftEstimate(
            experiment=e.name, estimator=name, kind="user", channel=e.channel, arm=arm, metric=metric, start=e.start,
            end=e.end, treated=(), mean=mean, std_error=se, dof=dof, **columns, noise_variance_share=min(noise, 1.0),
            spend_delta=math.nan if spent is None else spent * share, spend_delta_se=0.0,
            evidence_ids=(f"experiment:{e.name}", self.release.release_id),
            arm_ratio=self.people(arm) / self.people(e.control_arm),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Figures:
    """One way to read the incremental outcome of every arm and metric."""

    name: str
    estimates: tuple[Estimate, ...]  # arm by arm, metric by metric
    covariance: np.ndarray
    from_control: np.ndarray  # (K,) variance of each that the control arm alone gives


def _columns(test: _Test, name: str) -> list[str]:
    before = [test.design.before_of(m) for m in test.metrics] if name.endswith("cuped") else []
    return list(dict.fromkeys([*test.metrics, *before]))


def _figures(test: _Test, name: str) -> _Figures:
    """The reading `name`. Raises ContractError when the released totals do not carry it."""
    by_stratum = name.startswith("stratified")
    order = [test.experiment.control_arm, *test.treated]
    parts = {a: test.arms[a] if by_stratum else (test.whole(a),) for a in order}
    for cells in parts.values():
        for cell in cells:
            _check_people(test.experiment.name, cell)
    columns, size = _columns(test, name), len(parts[order[0]])

    def outcomes(points: Points) -> np.ndarray:
        """Incremental outcome (arms * columns,) of every treated arm."""
        control, out = points[:size], []
        for i in range(1, len(order)):
            treated = points[i * size : (i + 1) * size]
            out.append(sum(n for n, _ in treated) * over_strata(treated, control))
        return np.concatenate(out)

    found = joint(outcomes, [read_cell(c, columns, unreleased_is_zero=True) for a in order for c in parts[a]])
    directions, doubts = [], []
    for i in range(len(test.treated)):
        for m in test.metrics:
            y = i * len(columns) + columns.index(m)
            if name.endswith("cuped"):
                x = i * len(columns) + columns.index(test.design.before_of(m))
                direction, doubt = without_before(found, y, x)
            else:
                direction, doubt = np.eye(found.value.size)[y], np.zeros(())
            directions.append(direction)
            doubts.append(doubt)
    a, doubt = np.array(directions), np.array(doubts)
    estimates = tuple(uncertain(found, d, e) for d, e in zip(a, doubt, strict=True))
    own = np.array([float(e.sampling + e.released) for e in estimates])
    covariance = a @ (found.sampling + found.released) @ a.T
    np.fill_diagonal(covariance, own)
    held = Joint(found.cells[:size], found.value, found.gradient_n[:size], found.gradient_s[:size])
    shared = np.diag(a @ (held.sampling + held.released) @ a.T)
    return _Figures(name, estimates, covariance, np.minimum(shared, own))


def _first_readable(test: _Test) -> tuple[_Figures, list[CheckLine]]:
    """The declared reading, or the next plainer one that the totals carry, with a line on every step down."""
    wanted = [n for n in test.design.readings()[::-1] if n != test.design.published]
    notes: list[CheckLine] = []
    for name in (test.design.published, *wanted):
        try:
            return _figures(test, name), notes
        except ContractError as error:
            if name == "difference_in_means":
                raise
            notes.append(CheckLine("declared reading", "warn", f"{name} cannot be read: {error}".rstrip(".")))
    raise ContractError(f"experiment {test.experiment.name!r} has no reading.")


def _rows(test: _Test, figures: _Figures) -> tuple[LiftEstimate, ...]:
    keys = [(a, m) for a in test.treated for m in test.metrics]
    return tuple(test.estimate(figures.name, a, m, e) for (a, m), e in zip(keys, figures.estimates, strict=True))


def _exposed_rows(test: _Test) -> tuple[list[LiftEstimate], list[CheckLine]]:
    """Readings of the people who were, or would have been, reached."""
    rows, checks = [], []
    for arm in test.treated:
        pair = (test.whole(arm), test.control)
        if test.design.ghost:
            checks.append(_balance(exposure_balance(*pair), arm))
        for m in test.metrics:
            if test.design.ghost:
                rows.append(test.estimate("ghost_ads", arm, m, incremental_of_exposed(*pair, m)))
            else:
                rows += _per_person_reached(test, arm, m, checks)
    return rows, checks


def _balance(found: Estimate, arm: str) -> CheckLine:
    p = float(found.p_value())
    gap = float(found.value)
    text = f"logged exposure of arm {arm!r} differs from the control arm's by {gap:.2%} of people, p {p:.2g}"
    if p < BALANCE_LIMIT:
        return CheckLine(
            f"exposure balance {arm}",
            "fail",
            f"{text} (limit {BALANCE_LIMIT:g}): logging depends on the arm, so ghost_ads cannot be used",
            p,
            BALANCE_LIMIT,
        )
    return CheckLine(f"exposure balance {arm}", "pass", text, p, BALANCE_LIMIT)


def _per_person_reached(test: _Test, arm: str, metric: str, checks: list[CheckLine]) -> list[LiftEstimate]:
    """Effect per person whom the assignment reached; its interval is a Fieller set, so it may have no end."""
    pair = (test.whole(arm), test.control)
    wide, narrow = (complier_effect(*pair, metric, level) for level in (0.9, 0.8))
    if not (np.isfinite(wide.lower) and np.isfinite(narrow.lower)):
        line = f"{metric} of arm {arm!r}: exposure does not differ clearly between the arms, so an effect per person "
        checks.append(CheckLine(f"exposure {arm} {metric}", "warn", line + "reached has no bounds and is not shown"))
        return []
    columns = {
        "p05": float(wide.lower), "p10": float(narrow.lower), "p50": float(wide.value), "p90": float(narrow.upper),
        "p95": float(wide.upper), "p_value": float(wide.p_value),
    }  # fmt: skip
    se, share = float(wide.std_error), float(wide.noise_share)
    name = f"{metric} per person reached"
    return [test.row("complier_effect", arm, name, float(wide.value), se, math.inf, share, columns, paid=False)]


def _beside(test: _Test, published: str) -> tuple[list[LiftEstimate], list[CheckLine]]:
    rows: list[LiftEstimate] = []
    checks: list[CheckLine] = []

    def attempt(what: str, make: Callable[[], Sequence[LiftEstimate]]) -> None:
        try:
            rows.extend(make())
        except ContractError as error:
            checks.append(CheckLine(what, "warn", f"cannot be read: {error}".rstrip(".")))

    for name in test.design.readings():
        if name not in (published, test.design.published):
            attempt(name, lambda name=name: _rows(test, _figures(test, name)))  # type: ignore[misc]
    if test.design.exposed:

        def exposed() -> list[LiftEstimate]:
            found, lines = _exposed_rows(test)
            checks.extend(lines)
            return found

        attempt("exposed people", exposed)
    if test.design.ratio:
        top, under = test.design.ratio
        metric = f"{top} per {under.removesuffix('s')}"
        attempt(
            metric,
            lambda: [
                test.estimate("ratio_of_sums", a, metric, ratio(test.whole(a), test.control, top, under), paid=False)
                for a in test.treated
            ],
        )
    return rows, checks


def _families(test: _Test, figures: _Figures) -> dict[str, ArmEffects]:
    """Dunnett's figures of every metric, where there are several treated arms."""
    if len(test.treated) < 2:
        return {}
    out = {}
    for j, metric in enumerate(test.metrics):
        of = [i * len(test.metrics) + j for i in range(len(test.treated))]
        variance = np.diag(figures.covariance)[of]
        loadings = np.sqrt(figures.from_control[of] / variance)
        out[metric] = arm_effects(test.treated, [figures.estimates[i] for i in of], loadings)
    return out


def _with_variance(arms: Arms, metrics: Sequence[str]) -> tuple[tuple[str, ...], list[CheckLine]]:
    """Metrics whose variance can be had in every arm, and a line on each other. Raises ContractError where all fail."""
    lines, refused = [], []
    for metric in metrics:
        try:
            for cells in arms.values():
                read_cell(added(cells), [metric])
        except ContractError as error:
            lines.append(CheckLine(f"metric {metric}", "warn", f"cannot be read: {error}".rstrip(".")))
            refused.append(error)
    left = tuple(m for m in metrics if f"metric {m}" not in {line.name for line in lines})
    if not left:
        raise refused[0]
    return left, lines


def read_trial(experiment: Experiment, release: Release, *, spend_delta: float | None) -> TrialReading:
    """The published reading of a released test and what stands beside it.

    `spend_delta` is the spend change of the whole test, currency; several treated arms share it by their released
    sizes. Where the declared reading cannot be read (a stratum too small, a pre-period that is all noise), the next
    plainer one is published under its own name, and a check says why. Raises ContractError when an arm or a total is
    missing, or an arm's released size is too small to divide by.
    """
    if experiment.kind != "user":
        raise ContractError(f"experiment {experiment.name!r} is a {experiment.kind} test; read_trial reads user tests.")
    arms = read_arms(experiment, release)
    metrics, unread = _with_variance(arms, released_metrics(experiment, release))
    test = _Test(
        experiment, release, declared(release), arms, metrics, spend_delta
    )  # fmt: skip
    figures, notes = _first_readable(test)
    beside, checks = _beside(test, figures.name)
    return TrialReading(
        _rows(test, figures), figures.covariance, tuple(beside), _families(test, figures), (*unread, *notes, *checks)
    )
