"""`plumb scenario goal|afford|frontier|next`: questions whose answer is a budget, a trade-off or a ranking."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from contracts.errors import InputError
from workflow.cli_base import HERE, Chosen, Json, console, execute
from workflow.cli_scenario import Author, From, Note, root_in, save_in, who

if TYPE_CHECKING:
    from pathlib import Path

    from app.store import Snapshot
    from planning.goals import Goal
    from planning.optimise import Problem

Most = Annotated[
    float | None, typer.Option(help="Largest budget per week to consider; what was observed where absent.")
]
MaxChange = Annotated[float | None, typer.Option(help="Most that a channel may move from today's spend, share.")]
Locked = Annotated[list[str] | None, typer.Option("--lock", help="Channel that keeps today's spend.")]
Keep = Annotated[str, typer.Option("--save", metavar="NAME", help="Save the plan as a scenario.")]


def add_goals(group: typer.Typer) -> None:
    """Adds the commands to the group of scenarios."""
    for command in (goal, afford, frontier):
        group.command(command.__name__)(command)
    group.command("next")(next_)


def _problem(root: Path, s: Snapshot, locked: list[str] | None, max_change: float | None, free: bool,
             most: float | None = None) -> Problem:  # fmt: skip
    """[planning] with what is asked; its total is free up to `most` per week where `free` says so."""
    from app.saved import pricing
    from workflow.config import load
    from workflow.config_planning import changed_planning
    from workflow.plan_problem import problem_for

    here = pricing.surface(s)
    if most is None:
        most = float(here.response.steady.observed_max.sum()) * 7 / here.response.period_days
    planning = changed_planning(
        load(root / "plumb.toml").planning,
        locked=locked or (),
        max_change=max_change,
        free_up_to=most if free else None,
    )
    return problem_for(here, planning)


def _unit(s: Snapshot, problem: Problem) -> str:
    unit = problem.objective.unit
    return f"incremental {s.meta.kpi}" if unit == "kpi" else f"{s.meta.currency} of {unit}"


def _solve(
    workspace: Path | None, locked: list[str] | None, max_change: float | None, most: float | None,
    find: Callable[[Problem], Goal], saving: tuple[str, str, str],
) -> dict[str, Any]:  # fmt: skip
    """What a goal asks for; with the scenario that it was saved as where `saving` (name, note, author) names one."""
    from app import store
    from app.saved import pricing, scenarios
    from workflow.plan_problem import weeks_of

    root = root_in(workspace)
    s = store.load(root / "warehouse.duckdb")
    problem = _problem(root, s, locked, max_change, free=True, most=most)
    found = find(problem)
    weeks, best = weeks_of(problem.surface), found.best
    amounts = best.spend.sum(axis=(0, 1)) / weeks
    answer: dict[str, Any] = {
        "total": found.total, "per_week": found.total / weeks, "currency": s.meta.currency,
        "probability": found.probability, "unit": _unit(s, problem),
        "plan": dict(zip(problem.surface.response.channels, amounts.tolist(), strict=True)),
        **{k: best.interval[k] for k in ("p10", "p50", "p90")}, "extrapolated": list(best.extrapolated), "saved": "",
    }  # fmt: skip
    name, note, author = saving
    if name:
        priced = pricing.price(s, best.spend)

        def save(con: sqlite3.Connection) -> dict[str, Any]:
            made = scenarios.create(con, name, who(author), note, priced)
            return {"saved": made.name, "version": made.version}

        answer |= save_in(root, save)
    return answer


def _show(answer: dict[str, Any]) -> None:
    typer.echo(
        f"{answer['asked']}: {answer['total']:,.0f} {answer['currency']} over the period ({answer['per_week']:,.0f} a "
        f"week), with probability {answer['probability']:.0%}; {answer['unit']} P10 {answer['p10']:,.0f}, P50 "
        f"{answer['p50']:,.0f}, P90 {answer['p90']:,.0f}."
    )
    table = Table("channel", f"{answer['currency']} per week", box=None, pad_edge=False)
    for channel, amount in answer["plan"].items():
        table.add_row(channel, f"{amount:,.0f}")
    console().print(table)
    if answer["extrapolated"]:
        typer.echo(f"Beyond anything observed: {', '.join(answer['extrapolated'])}.")
    if answer["saved"]:
        typer.echo(f"Saved {answer['saved']}, version {answer['version']}.")


def goal(
    target: Annotated[float, typer.Option(help="What the plan is to bring over the whole period, unit of [planning].")],
    probability: Annotated[float, typer.Option(help="With at least this probability.")] = 0.8,
    most: Most = None, max_change: MaxChange = None, locked: Locked = None, keep: Keep = "",
    note: Note = "", author: Author = "", workspace: Chosen = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Find the least budget that reaches a target with a stated probability, and its plan."""
    saving = (keep, note, author)

    def work() -> dict[str, Any]:
        from planning.goals import least_budget

        found = _solve(workspace, locked, max_change, most, lambda p: least_budget(p, target, probability), saving)
        return {"asked": f"Least budget for {target:,.0f} {found['unit']}", "target": target} | found

    execute(workspace or HERE, as_json, work, _show)


def afford(
    roi: Annotated[float | None, typer.Option(help="Worth that a unit of money must bring on average.")] = None,
    cpa: Annotated[float | None, typer.Option(help="Most that a unit of the KPI may cost on average.")] = None,
    most: Most = None, max_change: MaxChange = None, locked: Locked = None, keep: Keep = "",
    note: Note = "", author: Author = "", workspace: Chosen = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Find the largest budget that still earns a ratio, and its plan."""
    saving = (keep, note, author)

    def work() -> dict[str, Any]:
        from planning.goals import largest_budget

        found = _solve(workspace, locked, max_change, most, lambda p: largest_budget(p, roi=roi, cpa=cpa), saving)
        asked = f"Largest budget at an ROI of {roi:g}" if roi is not None else f"Largest budget at a CPA of {cpa:g}"
        return {"asked": asked, "roi": roi, "cpa": cpa} | found

    execute(workspace or HERE, as_json, work, _show)


def frontier(
    points: Annotated[int, typer.Option(help="Plans between the two ends, both included.")] = 6,
    max_change: MaxChange = None, locked: Locked = None, workspace: Chosen = None, as_json: Json = False,
) -> None:  # fmt: skip
    """List the plans between the best expected gain and the best bad case, at the budget of [planning]."""

    def work() -> dict[str, Any]:
        from app import store
        from planning import goals
        from workflow.plan_problem import weeks_of

        root = root_in(workspace)
        s = store.load(root / "warehouse.duckdb")
        problem = _problem(root, s, locked, max_change, free=False)
        weeks, channels = weeks_of(problem.surface), problem.surface.response.channels
        table = goals.frontier(problem, points)
        rows = [
            row | {"plan": dict(zip(channels, (row["plan"].spend.sum(axis=(0, 1)) / weeks).tolist(), strict=True))}
            for row in table.to_dict("records")
        ]
        return {"plans": rows, "unit": _unit(s, problem), "currency": s.meta.currency, "level": problem.objective.level}

    def show(answer: dict[str, Any]) -> None:
        typer.echo(f"{answer['unit']} over the period; worst case: mean of the worst {answer['level']:.0%} of draws.")
        names = list(answer["plans"][0]["plan"])
        table = Table("caution", "mean", "worst case", "P10", "P(gain)", *(f"{n} a week" for n in names), box=None)
        for r in answer["plans"]:
            figures = [f"{r[k]:,.0f}" for k in ("mean", "cvar", "p10")]
            table.add_row(f"{r['caution']:.0%}", *figures, f"{r['gain_probability']:.0%}",
                          *(f"{r['plan'][n]:,.0f}" for n in names))  # fmt: skip
        console().print(table)

    execute(workspace or HERE, as_json, work, show)


def next_(
    amount: Annotated[float, typer.Option(help="Extra money over the whole period.")] = 10_000.0,
    source: From = "current", workspace: Chosen = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Rank channels by what the next amount of money would bring there."""

    def work() -> dict[str, Any]:
        from app import store
        from app.saved import database, files
        from planning.goals import marginal_ranking
        from workflow import scenario_files

        root = root_in(workspace)
        if not amount > 0:
            raise InputError(f"--amount is {amount:g}; it must be more than 0.")
        s = store.load(root / "warehouse.duckdb")
        problem = _problem(root, s, None, None, free=False)
        with database.reading(root / files.STATE_NAME) as con:
            plan = scenario_files.start_from(s, con, root, source)
        table = marginal_ranking(problem, plan, amount)
        return {"channels": table.to_dict("records"), "amount": amount, "from": source, "unit": _unit(s, problem),
                "currency": s.meta.currency}  # fmt: skip

    def show(answer: dict[str, Any]) -> None:
        typer.echo(f"The next {answer['amount']:,.0f} {answer['currency']} on top of {answer['from']}, in "
                   f"{answer['unit']}:")  # fmt: skip
        table = Table("channel", "mean", "P10", "P90", f"per {answer['currency']}", "", box=None, pad_edge=False)
        for r in answer["channels"]:
            far = "beyond anything observed" if r["extrapolated"] else ""
            table.add_row(
                r["channel"], *(f"{r[k]:,.1f}" for k in ("mean", "p10", "p90")), f"{r['per_currency']:.3g}", far
            )
        console().print(table)

    execute(workspace or HERE, as_json, work, show)
