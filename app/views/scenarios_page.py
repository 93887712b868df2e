"""Scenarios: move budget by slider or number, see the outcome with its interval, let the rest be optimised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import streamlit as st

from app import figures, optimise, scenario, tables
from app.charts import comparison as comparison_charts
from app.charts import curve
from app.scenario import Comparison
from app.store import Snapshot
from app.views import common, saved_section
from app.views.keys import FOUND, NOTICE, PLAN, TOTAL
from app.wording import Units, between, listed, percent
from contracts.errors import UserError
from planning.scenarios import last_day
from planning.surface import Surface

SOURCE = "scenario_source"  # the channels that the plan is for, and their current spend
BUDGET, WIDTH, HOLD = "scenario_budget", "scenario_guardrail", "scenario_hold"
TARGET, SURE = "scenario_target", "scenario_sure"


@dataclass(frozen=True, slots=True)
class Desk:
    """What the callbacks need: what plans are priced on, the units and the bounds now in force."""

    surface: Surface
    units: Units
    low: np.ndarray  # (C,), currency per period
    high: np.ndarray

    @property
    def locked(self) -> list[bool]:
        """Which channels the user has locked."""
        return [bool(st.session_state.get(_lock(c))) for c in self.surface.response.channels]


def render() -> None:
    """Draws the page."""
    s = common.snapshot_or_stop()
    st.header("Scenarios")
    common.banners(s)
    if s.surface is None:
        why = common.plain(figures.why_not(s, "fit", "fit_calibrated", "plan"))
        st.info(f"Scenarios need a published model, and there is none. {why or 'Run `plumb run`.'}")
        saved_section.saved_list(s)
        _per_channel(s)
        common.footer(figures.provenance(s.effects, s.kpi))
        return
    units = figures.units(s)
    _open_plan(s.surface)
    desk = _settings(s.surface, units)
    _channels(desk)
    outcome = scenario.compare(s.surface, st.session_state[PLAN])
    _goal(desk, outcome.current.mean)
    _notices(desk, outcome)
    _outcome(s, outcome, units)
    saved_section.save_form(s, units)
    saved_section.saved_list(s)
    _per_channel(s)
    _curve(s, units)


def _lock(channel: str) -> str:
    return f"scenario_lock.{channel}"


def _open_plan(surface: Surface) -> None:
    """Starts from the address or the current split. A new fit keeps a plan that was moved, as long as the channels are
    the same."""
    response = surface.response
    now, (channels, before) = scenario.current(surface), st.session_state.get(SOURCE, ((), None))
    st.session_state[SOURCE] = (response.channels, now)
    if channels == response.channels and not np.array_equal(st.session_state[PLAN], before):
        return
    if channels == response.channels and np.array_equal(before, now):
        return
    st.session_state[PLAN] = scenario.from_query(response.channels, st.query_params.to_dict(), now)
    st.session_state[TOTAL] = float(round(st.session_state[PLAN].sum(), 2))


def _settings(surface: Surface, units: Units) -> Desk:
    budget, width, hold = st.columns([2, 2, 1.4], vertical_alignment="bottom")
    share = width.slider(
        "Guardrails: most that a channel may move from now",
        min_value=5, max_value=100, value=round(100 * scenario.GUARDRAIL), step=5,
        format="± %d %%", key=WIDTH, persist_state="session",
    )  # fmt: skip
    low, high = scenario.guardrails(surface, share / 100)
    desk = Desk(surface, units, low, high)
    st.session_state[BUDGET] = st.session_state[TOTAL]  # a widget's own state does not outlive a change of page
    budget.number_input(
        f"Budget, {units.currency} per {units.period}",
        min_value=0.0, step=_step(scenario.current(surface).sum()), format="%.0f", key=BUDGET,
        on_change=_budget_moved, args=(desk,),
    )  # fmt: skip
    hold.toggle("Lock the total", key=HOLD, persist_state="session", help="Other unlocked channels give way.")
    return desk


def _channels(desk: Desk) -> None:
    plan, now = st.session_state[PLAN], scenario.current(desk.surface)
    for i, channel in enumerate(desk.surface.response.channels):
        low, high = float(min(desk.low[i], plan[i])), float(max(desk.high[i], plan[i]))
        name, slide, number, lock = st.columns([1.1, 3, 1.6, 0.8], vertical_alignment="bottom")
        name.markdown(f"**{common.plain(channel)}**  \nnow {common.plain(desk.units.money(now[i]))}")
        locked = bool(st.session_state.get(_lock(channel)))
        _slider(desk, slide, i, low, high, locked)
        number_key = f"scenario_spend.{channel}"
        st.session_state[number_key] = float(plan[i])
        number.number_input(
            f"{channel}, {desk.units.currency} per {desk.units.period}",
            min_value=low, max_value=max(high, low + 1e-6), step=_step(now[i]), format="%.0f", key=number_key,
            disabled=locked, on_change=_number_moved, args=(desk, i, number_key),
        )  # fmt: skip
        lock.checkbox("Lock", key=_lock(channel), persist_state="session", help=f"Keep {channel} where it is.")
    _buttons(desk)


def _slider(
    desk: Desk, place: st.delta_generator.DeltaGenerator, i: int, low: float, high: float, locked: bool
) -> None:
    """Change in per cent of current spend; a channel without spend now can only be typed."""
    channel, now = desk.surface.response.channels[i], scenario.current(desk.surface)[i]
    if now <= 0:
        place.caption(f"No spend now: type an amount up to {common.plain(desk.units.money(high))}.")
        return
    key = f"scenario_move.{channel}"
    least, most = int(np.floor(100 * (low / now - 1))), int(np.ceil(100 * (high / now - 1)))
    st.session_state[key] = int(np.clip(round(100 * (st.session_state[PLAN][i] / now - 1)), least, most))
    place.slider(
        f"{channel}, change from now",
        min_value=least, max_value=most, step=1, format="%+d %%", key=key,
        disabled=locked, on_change=_slider_moved, args=(desk, i, key),
    )  # fmt: skip


def _buttons(desk: Desk) -> None:
    with st.container(horizontal=True):
        st.button(
            "Optimise the rest", type="primary", icon=":material/auto_fix_high:", on_click=_optimise, args=(desk,)
        )
        st.button("Reset to current", icon=":material/restart_alt:", on_click=_reset, args=(desk,))
        st.button("Put into the address", icon=":material/link:", on_click=_share, args=(desk,))


def _goal(desk: Desk, now: float) -> None:
    """The least budget whose plan reaches a target, inside guardrails and locks. `now`: KPI units per period, caused
    by the current split."""
    units = desk.units
    with st.expander("How little reaches a target", icon=":material/target:"):
        target, sure, find = st.columns([2, 2, 1.4], vertical_alignment="bottom")
        target.number_input(
            f"Target: {units.kpi_title} per {units.period} caused",
            min_value=0.0, value=float(round(now)), step=_step(now), format="%.0f", key=TARGET,
        )  # fmt: skip
        sure.slider("With at least this probability", 50, 95, 80, 5, format="%d %%", key=SURE)
        if find.button("Find the least budget", icon=":material/savings:"):
            with st.spinner("Looking for the least budget", show_time=True):
                _least(desk)
            st.rerun()


def _least(desk: Desk) -> None:
    low, high = scenario.hold_locked(desk.low, desk.high, st.session_state[PLAN], desk.locked)
    target, sure, units = float(st.session_state[TARGET]), st.session_state[SURE] / 100, desk.units
    try:
        plan, chance = optimise.least_spend(desk.surface, target, sure, low, high)
    except UserError as e:
        st.session_state[NOTICE] = f"Over the whole planning period, {e} Guardrails and locks bound the spend."
        return
    st.session_state[PLAN], st.session_state[TOTAL] = plan, float(round(plan.sum(), 2))
    st.session_state[FOUND] = (
        f"{units.money(plan.sum())} per {units.period} is the least that causes {units.kpi_figure(target)} per "
        f"{units.period} with probability {percent(chance)}, inside guardrails and locks. The channels now hold it."
    )


def _slider_moved(desk: Desk, i: int, key: str) -> None:
    now = scenario.current(desk.surface)[i]
    _move(desk, i, float(now * (1 + st.session_state[key] / 100)))


def _number_moved(desk: Desk, i: int, key: str) -> None:
    _move(desk, i, float(st.session_state[key]))


def _move(desk: Desk, i: int, value: float) -> None:
    plan = st.session_state[PLAN].copy()
    plan[i] = value
    if not st.session_state.get(HOLD):
        st.session_state[PLAN] = plan
        st.session_state[TOTAL] = float(plan.sum())
        return
    keep = desk.locked
    keep[i] = True
    _fit_to_budget(desk, plan, keep)


def _budget_moved(desk: Desk) -> None:
    st.session_state[TOTAL] = float(st.session_state[BUDGET])
    _fit_to_budget(desk, st.session_state[PLAN].copy(), desk.locked)


def _fit_to_budget(desk: Desk, plan: np.ndarray, keep: list[bool]) -> None:
    budget = float(st.session_state[TOTAL])
    held = scenario.hold_total(plan, budget, keep, desk.low, desk.high)
    if held is None:
        st.session_state[PLAN] = plan
        low, high = scenario.hold_locked(desk.low, desk.high, plan, keep)
        st.session_state[NOTICE] = scenario.feasible(low, high, budget, desk.units)
        return
    st.session_state[PLAN] = held


def _optimise(desk: Desk) -> None:
    budget = float(st.session_state[TOTAL])
    low, high = scenario.hold_locked(desk.low, desk.high, st.session_state[PLAN], desk.locked)
    refusal = scenario.feasible(low, high, budget, desk.units)
    if refusal:
        st.session_state[NOTICE] = refusal
        return
    try:
        st.session_state[PLAN] = optimise.best_spend(desk.surface, budget, low, high)
    except UserError as e:
        st.session_state[NOTICE] = str(e)


def _reset(desk: Desk) -> None:
    plan = scenario.current(desk.surface)
    st.session_state[PLAN], st.session_state[TOTAL] = plan, float(plan.sum())
    for channel in desk.surface.response.channels:
        st.session_state[_lock(channel)] = False
    st.query_params.clear()


def _share(desk: Desk) -> None:
    st.query_params.from_dict(scenario.to_query(desk.surface.response.channels, st.session_state[PLAN]))


def _notices(desk: Desk, outcome: Comparison) -> None:
    notice = st.session_state.pop(NOTICE, "")
    if notice:
        st.warning(common.plain(notice), icon=":material/warning:")
    if found := st.session_state.pop(FOUND, ""):
        st.success(common.plain(found), icon=":material/savings:")
    planned, budget = float(outcome.rows["spend"].sum()), float(st.session_state[TOTAL])
    if abs(planned - budget) > 0.005 * max(budget, 1.0):
        money = desk.units.money
        st.warning(
            common.plain(f"The channels add up to {money(planned)}, not to the budget of {money(budget)}."),
            icon=":material/warning:",
        )
    beyond = scenario.extrapolated(desk.surface, outcome.rows["spend"].to_numpy())
    if beyond:
        st.warning(
            common.plain(
                f"Outside observed spend: {listed(beyond)}. The curve there is an extrapolation (dashed); "
                "its interval is widened for that."
            ),
            icon=":material/warning:",
        )


def _outcome(s: Snapshot, outcome: Comparison, units: Units) -> None:
    st.subheader("Outcome against the current split")
    per = f"per {units.period}"
    for place, (name, value) in zip(
        st.columns(3),
        (("now", outcome.current), ("scenario", outcome.planned), ("change", outcome.change)),
        strict=True,
    ):
        place.metric(
            f"{name}: {units.kpi_title} {per} caused",
            units.kpi_figure(value.mean),
            border=True, delta_arrow="off", delta_color="off",
            delta=f"90 % interval: {between(value.p05, value.p95)}",
        )  # fmt: skip
    st.markdown(f"**{common.plain(scenario.verdict(outcome.change, outcome.probability))}**")
    names, changes = figures.channels(s), scenario.change_rows(outcome)
    bars = scenario.spend_rows(outcome)
    left, right = st.columns(2)
    left.altair_chart(
        comparison_charts.spend_bars(bars, names, units),
        width="stretch", alt=comparison_charts.spend_alt_text(bars, units),
    )  # fmt: skip
    if outcome.moved:
        right.altair_chart(
            comparison_charts.outcome_change(changes, names, units),
            width="stretch", alt=comparison_charts.alt_text(changes, units),
        )  # fmt: skip
    else:
        right.info("Move a channel or press “Optimise the rest” to see what changes.")
    common.table(tables.plan(outcome.rows, units), "Spend and change of outcome per channel")
    note = f"Bars: outline now, filled scenario. {_period(s.surface, units)}" if s.surface else ""
    common.footer(figures.provenance(figures.effect(s, "incremental_kpi")), note, view="v_effects")
    common.download("Download scenario (CSV)", scenario.cells_csv(outcome, units), "scenario.csv")


def _period(surface: Surface, units: Units) -> str:
    return (
        f"Both hold their spend from {surface.start} to {last_day(surface)}, on the same posterior draws; outcome per "
        f"{units.period} of the plan, what it works afterwards included, what earlier spend still brings left out"
    )


def _curve(s: Snapshot, units: Units) -> None:
    names = sorted(set(s.curves["channel"]))
    if not names or s.surface is None:
        return
    st.subheader("Response curves")
    channel = st.selectbox("Channel", names, key="scenario_curve")
    rows = s.curves[s.curves["channel"] == channel]
    known = s.surface.response.channels
    at = known.index(channel) if channel in known else None
    now = float(scenario.current(s.surface)[at]) if at is not None else 0.0
    planned = float(st.session_state[PLAN][at]) if at is not None else None
    chart = curve.response_curve(rows, channel, figures.channels(s), now, units, planned)
    st.altair_chart(chart, width="stretch", alt=curve.alt_text(rows, channel, now, units))
    common.footer(figures.provenance(rows), "Band: 90 % interval. Dashed: beyond observed spend", view="v_curves")


def _per_channel(s: Snapshot) -> None:
    st.subheader("Scenarios per channel")
    if s.scenarios.empty:
        st.info("There is no scenario yet. `plumb plan` writes the current split and the best one it found.")
        return
    common.table(tables.scenarios(s), "Scenarios of the job and saved ones with spend and outcome per channel")
    common.footer(figures.provenance(s.scenarios), view="v_scenarios")


def _step(now: float) -> float:
    """One per cent of now, rounded to a handy size, for the number's arrows."""
    return float(10 ** np.floor(np.log10(now / 20))) if now > 0 else 1.0


if __name__ == "__main__":
    render()
