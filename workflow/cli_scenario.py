"""`plumb scenario`: plans that people save, by the same store and the same prices as the explorer's page."""

from __future__ import annotations

import getpass
import sqlite3
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from contracts.errors import InputError
from workflow.cli_base import HERE, Chosen, Json, console, date_of, execute

Name = Annotated[str, typer.Argument(help="Name of a saved scenario.")]
Author = Annotated[str, typer.Option(help="Who does this; the account's name where absent.")]
Note = Annotated[str, typer.Option(help="Why.")]
Reason = Annotated[str, typer.Option(help="Why, in your words; it is kept.")]
Spends = Annotated[
    list[str] | None, typer.Option("--spend", metavar="CHANNEL=AMOUNT", help="Per week: 12000, or a change: +10%.")
]
From = Annotated[str, typer.Option("--from", help="'current', 'recommended' or a saved scenario to start from.")]


def add_scenario(app: typer.Typer) -> typer.Typer:
    """Adds the group of commands, and gives it."""
    group = typer.Typer(help="Scenarios: create, price, compare, approve, import and export.", no_args_is_help=True)
    for command in (create, best, duplicate, lock, compare, approve, record, pace):
        group.command(command.__name__)(command)
    group.command("list")(listed)
    group.command("export")(export)
    group.command("import")(import_)
    app.add_typer(group, name="scenario")
    return group


def who(author: str) -> str:
    """The author that is named, else the account. Raises InputError where neither has a name."""
    if author.strip():
        return author
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise InputError("the account has no name; give --author.") from None


def root_in(workspace: Path | None) -> Path:
    """Root of the workspace that is named, else of this folder. Raises WorkspaceError where there is none."""
    from workflow.paths import Workspace

    return Workspace(workspace or HERE).require().root


def save_in(root: Path, work: Callable[[sqlite3.Connection], dict[str, Any]]) -> dict[str, Any]:
    """One transaction, and its copy into the warehouse. Nothing is saved when `work` raises."""
    from app.saved import database, files, publish

    with database.writing(root / files.STATE_NAME) as con:
        answer = work(con)
    if (root / "warehouse.duckdb").is_file():
        publish.publish(root / "warehouse.duckdb")
    return answer


def _pairs(values: list[str] | None, option: str) -> dict[str, str]:
    out = {}
    for value in values or []:
        name, sign, amount = value.partition("=")
        if not sign or not name or not amount:
            raise InputError(f"{option} is {value!r}; write CHANNEL=AMOUNT.")
        out[name] = amount
    return out


def _say(answer: dict[str, Any]) -> None:
    far = f"; beyond anything observed: {', '.join(answer['extrapolated'])}" if answer["extrapolated"] else ""
    typer.echo(
        f"Saved {answer['name']}, version {answer['version']}: {answer['budget']:,.0f} {answer['currency']} per "
        f"period, {answer['period_start']} to {answer['period_end']}; {answer['kpi']} P10 {answer['p10']:,.0f}, "
        f"P50 {answer['p50']:,.0f}, P90 {answer['p90']:,.0f}{far}."
    )


def create(
    name: Name, spend: Spends = None, source: From = "current", note: Note = "", author: Author = "",
    workspace: Chosen = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Price a plan over the planning period and save it."""

    def work() -> dict[str, Any]:
        from app import store
        from app.saved import pricing, scenarios
        from workflow import scenario_files as files

        root = root_in(workspace)
        s = store.load(root / "warehouse.duckdb")

        def save(con: sqlite3.Connection) -> dict[str, Any]:
            base = files.start_from(s, con, root, source)
            plan = files.changed(pricing.surface(s), base, _pairs(spend, "--spend"))
            return files.describe(scenarios.create(con, name, who(author), note, pricing.price(s, plan)))

        return save_in(root, save)

    execute(workspace or HERE, as_json, work, _say)


def best(
    name: Name,
    budget: Annotated[float | None, typer.Option(help="Per week; that of plumb.toml, else today's.")] = None,
    objective: Annotated[str | None, typer.Option(help="mean, p10, cvar or probability.")] = None,
    locked: Annotated[list[str] | None, typer.Option("--lock", help="Channel that keeps today's spend.")] = None,
    max_change: Annotated[float | None, typer.Option(help="Most that a channel may move, share.")] = None,
    target: Annotated[float | None, typer.Option(help="Of objective 'probability'.")] = None,
    note: Note = "", author: Author = "", workspace: Chosen = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Find the best plan under [planning] and these changes, and save it."""

    def work() -> dict[str, Any]:
        from app import store
        from app.saved import pricing, scenarios
        from planning.optimise import optimise
        from workflow import scenario_files as files
        from workflow.config import load
        from workflow.config_planning import changed_planning
        from workflow.plan_problem import problem_for

        root = root_in(workspace)
        s = store.load(root / "warehouse.duckdb")
        planning = changed_planning(
            load(root / "plumb.toml").planning, budget=budget, objective=objective, locked=locked or (),
            max_change=max_change, target=target,
        )  # fmt: skip
        found = optimise(problem_for(pricing.surface(s), planning))
        priced = pricing.price(s, found.spend)

        def save(con: sqlite3.Connection) -> dict[str, Any]:
            made = scenarios.create(con, name, who(author), note, priced)
            if locked:
                made = scenarios.lock(con, made.id, made.version, who(author), locked)
            gain = {f"gain_{k}": found.gain_interval[k] for k in ("p10", "p50", "p90")}
            return files.describe(made) | gain | {"gap": found.gap, "gain_probability": found.gain_probability}

        return save_in(root, save)

    execute(workspace or HERE, as_json, work, _say)


def duplicate(name: Name, author: Author = "", workspace: Chosen = None, as_json: Json = False) -> None:
    """Save the same plan under another name."""

    def work() -> dict[str, Any]:
        from app.saved import scenarios
        from workflow import scenario_files as files

        return save_in(root_in(workspace), lambda con: files.describe(
            scenarios.duplicate(con, scenarios.by_name(con, name).id, who(author))))  # fmt: skip

    execute(workspace or HERE, as_json, work, _say)


def lock(
    name: Name,
    channel: Annotated[list[str] | None, typer.Option(help="Channel to lock; none unlocks all.")] = None,
    author: Author = "", workspace: Chosen = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Lock channels of a scenario: nobody can save another spend for them."""

    def work() -> dict[str, Any]:
        from app.saved import scenarios
        from workflow import scenario_files as files

        def save(con: sqlite3.Connection) -> dict[str, Any]:
            old = scenarios.by_name(con, name)
            return files.describe(scenarios.lock(con, old.id, old.version, who(author), channel or ()))

        return save_in(root_in(workspace), save)

    execute(workspace or HERE, as_json, work, _say)


def approve(
    name: Name, reason: Reason,
    reject: Annotated[bool, typer.Option(help="Say no.")] = False,
    author: Author = "", workspace: Chosen = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Approve, or reject, the newest version of a scenario, with a reason."""

    def work() -> dict[str, Any]:
        from app.saved import remarks, scenarios

        def save(con: sqlite3.Connection) -> dict[str, Any]:
            old = scenarios.by_name(con, name)
            said = "rejected" if reject else "approved"
            remarks.decide(con, old.id, old.version, said, reason, who(author))
            return {"name": old.name, "version": old.version, "decision": said, "author": who(author)}

        return save_in(root_in(workspace), save)

    execute(
        workspace or HERE, as_json, work, lambda a: typer.echo(f"{a['name']}, version {a['version']}: {a['decision']}.")
    )


def record(name: Name, reason: Reason, author: Author = "", workspace: Chosen = None, as_json: Json = False) -> None:
    """Make an approved scenario the plan of record."""

    def work() -> dict[str, Any]:
        from app.saved import remarks, scenarios

        def save(con: sqlite3.Connection) -> dict[str, Any]:
            old = scenarios.by_name(con, name)
            remarks.record(con, old.id, old.version, reason, who(author))
            return {"name": old.name, "version": old.version}

        return save_in(root_in(workspace), save)

    execute(
        workspace or HERE, as_json, work, lambda a: typer.echo(f"{a['name']} v{a['version']} is the plan of record.")
    )


def compare(
    names: Annotated[list[str], typer.Argument(help="'current', 'recommended' or saved ones; the first is the base.")],
    workspace: Chosen = None,
    as_json: Json = False,
) -> None:
    """Put plans side by side on the same draws, so that the difference has its own interval."""

    def work() -> dict[str, Any]:
        from app import store
        from app.saved import database, files
        from workflow import scenario_files

        root = root_in(workspace)
        s = store.load(root / "warehouse.duckdb")
        with database.reading(root / files.STATE_NAME) as con:
            plans = {n: scenario_files.start_from(s, con, root, n) for n in dict.fromkeys(names)}
        return {"plans": scenario_files.compare(s, plans).to_dict("records"), "kpi": s.meta.kpi}

    def show(answer: dict[str, Any]) -> None:
        table = Table("plan", "spend", "P10", "P50", "P90", "gain P10", "gain P50", "gain P90", "P(better)", "widened",
                      box=None, pad_edge=False)  # fmt: skip
        for row in answer["plans"]:
            figures = [f"{row[k]:,.0f}" for k in ("spend", "p10", "p50", "p90", "gain_p10", "gain_p50", "gain_p90")]
            table.add_row(row["plan"], *figures, f"{row['gain_probability']:.0%}", row["extrapolated"])
        console().print(table)

    execute(workspace or HERE, as_json, work, show)


def listed(workspace: Chosen = None, as_json: Json = False) -> None:
    """List saved scenarios."""

    def work() -> dict[str, Any]:
        from app.saved import database, files, remarks, scenarios
        from workflow import scenario_files

        with database.reading(root_in(workspace) / files.STATE_NAME) as con:
            now = remarks.of_record(con)
            return {"scenarios": [
                scenario_files.describe(s) | {"of_record": now is not None
                                              and (now.scenario_id, now.version) == (s.id, s.version)}
                for s in scenarios.every(con)
            ]}  # fmt: skip

    def show(answer: dict[str, Any]) -> None:
        if not answer["scenarios"]:
            typer.echo("Nothing has been saved yet. Try: plumb scenario create NAME --spend CHANNEL=+10%")
            return
        table = Table("name", "version", "author", "from", "to", "P10", "P50", "P90", "of record", box=None)
        for r in answer["scenarios"]:
            figures = [f"{r[k]:,.0f}" for k in ("p10", "p50", "p90")]
            days = (str(r["period_start"]), str(r["period_end"]))
            table.add_row(r["name"], str(r["version"]), r["author"], *days, *figures, "yes" if r["of_record"] else "")
        console().print(table)

    execute(workspace or HERE, as_json, work, show)


def export(
    name: Name, file: Annotated[Path, typer.Argument(help="FILE.json, .csv or .xlsx")],
    workspace: Chosen = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Write a scenario to a file: one row per week, geo and channel; JSON keeps its approvals."""

    def work() -> dict[str, Any]:
        from app.saved import database, files, remarks, scenarios
        from workflow import scenario_files

        with database.reading(root_in(workspace) / files.STATE_NAME) as con:
            saved = scenarios.by_name(con, name)
            plan = scenario_files.plan_of(saved, remarks.approvals(con, saved.id), remarks.of_record(con))
        scenario_files.write_plan(plan, file)
        return {"file": str(file), "rows": int(plan.spend.size)}

    execute(workspace or HERE, as_json, work, lambda a: typer.echo(f"Wrote {a['file']}: {a['rows']} rows."))


def import_(
    file: Annotated[Path, typer.Argument(help="FILE.json, .csv or .xlsx, as `export` writes it.")],
    name: Annotated[str, typer.Option(help="Save it under this name instead of the file's.")] = "",
    note: Note = "", author: Author = "", workspace: Chosen = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Read a plan from a file, price it and save it. A file that does not fit saves nothing."""

    def work() -> dict[str, Any]:
        from app import store
        from app.saved import pricing, scenarios
        from workflow import scenario_files as files

        root = root_in(workspace)
        plan = files.read_plan(file, who(author))
        s = store.load(root / "warehouse.duckdb")
        priced = pricing.price(s, files.on_surface(plan, pricing.surface(s)))
        said = note or plan.note
        return save_in(root, lambda con: files.describe(
            scenarios.create(con, name or plan.name, who(author), said, priced)))  # fmt: skip

    execute(workspace or HERE, as_json, work, _say)


def pace(
    name: Annotated[str, typer.Argument(help="A saved scenario; the plan of record where absent.")] = "",
    as_of: Annotated[str | None, typer.Option("--as-of", help="Up to this day.")] = None,
    workspace: Chosen = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Planned against actual spend to date, with alerts."""

    def work() -> dict[str, Any]:
        from app.saved import database, files, remarks, scenarios
        from workflow import scenario_files
        from workflow.job import Job

        root = root_in(workspace)
        day: date | None = date_of(as_of)
        with database.reading(root / files.STATE_NAME) as con:
            now = remarks.of_record(con)
            if not name and now is None:
                raise InputError("there is no plan of record; name a scenario, or: plumb scenario record NAME")
            saved = scenarios.by_name(con, name) if name or now is None else scenarios.get(
                con, now.scenario_id, now.version)  # fmt: skip
        table, weeks, last = scenario_files.pace(Job.open(root, quiet=True), saved.pricing, day)
        return {"name": saved.name, "version": saved.version, "as_of": last, "channels": table.to_dict("records"),
                "weeks": weeks.to_dict("records")}  # fmt: skip

    def show(answer: dict[str, Any]) -> None:
        typer.echo(f"{answer['name']}, version {answer['version']}, up to {answer['as_of']}:")
        table = Table("channel", "planned", "actual", "off by", "at the end", "alerts", box=None, pad_edge=False)
        for r in answer["channels"]:
            table.add_row(r["channel"], f"{r['planned']:,.0f}", f"{r['actual']:,.0f}", f"{r['deviation']:+.0%}",
                          f"{r['projected']:,.0f}", r["alerts"])  # fmt: skip
        console().print(table)

    execute(workspace or HERE, as_json, work, show)
