"""Commands of the privacy budget: `plumb budget`, `plumb budget plan`, `plumb budget void`, `plumb verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from contracts.errors import InputError
from workflow.cli_base import HERE, Chosen, Folder, Json, console, execute, root_of

NOT_VERIFIED = 5
SHOW = "show"


class _ShowFirst(TyperGroup):
    """`plumb budget [DIR]` shows the budget; `plan` and `void` after it are commands of their own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the hidden command `show` before anything that is no command."""
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = [SHOW, *args]
        return list(super().parse_args(ctx, args))


budget = typer.Typer(
    cls=_ShowFirst,
    help="Show the privacy budget, spent and left; `plan` says what a budget buys, `void` takes an unused charge back. "
    "A folder called plan or void is named with -C.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@budget.command(SHOW, hidden=True)
def show_budget(directory: Folder = HERE, workspace: Chosen = None, as_json: Json = False) -> None:
    """Show the privacy budget, spent and left, per quarter, year and measure, and who charged what when."""
    root = root_of(directory, workspace)

    def work() -> dict[str, Any]:
        from workflow.budget import budget_of
        from workflow.job import Job

        return budget_of(Job.open(root, quiet=True))

    execute(root, as_json, work, _print_budget)


def _print_budget(answer: dict[str, Any]) -> None:
    if answer["door"] == "panel":
        typer.echo(answer["text"])
        return
    grant, delta = answer["grant"], answer["delta"]
    if not answer["blocks"]:
        typer.echo(
            f"Nothing was released yet; no privacy budget is spent. Each quarter is granted rho {grant['rho']:g} "
            f"(epsilon {grant['epsilon']:.3g} at delta {delta:g}; a year {grant['year_epsilon']:.3g}): "
            + ", ".join(f"{m} {rho:.4g}" for m, rho in grant["shares"].items() if rho)
            + ". What that buys: plumb budget plan"
        )
    else:
        _print_spending(answer)
    for row in answer["voided"]:
        typer.echo(
            f"Voided: {row['release_id']} (rho {row['rho']:.4g}), {str(row['voided_at'])[:19]} by {row['by']}: "
            f"{row['reason']}"
        )


def _print_spending(answer: dict[str, Any]) -> None:
    delta = answer["delta"]
    table = Table("quarter", "measure", "spent rho", "left rho", "grant rho", "epsilon", box=None, pad_edge=False)
    for row in answer["blocks"]:
        table.add_row(row["block"], "all", *(f"{row[k]:.4g}" for k in ("spent", "left", "cap", "epsilon")))
        for part in row["measures"]:
            table.add_row("", part["measure"], *(f"{part[k]:.4g}" for k in ("spent", "left", "cap", "epsilon")))
    console().print(table)
    years = Table("fiscal year from", "spent rho", "grant so far", "epsilon", box=None, pad_edge=False)
    for row in answer["years"]:
        years.add_row(row["from"], *(f"{row[k]:.4g}" for k in ("spent", "cap", "epsilon")))
    console().print(years)
    charges = Table("charged (UTC)", "by", "release", "quarter", "rho", "share", "state", box=None, pad_edge=False)
    for row in answer["charges"]:
        charges.add_row(
            row["charged_at"][:19],
            row["by"],
            row["release_id"],
            row["block"],
            f"{row['rho']:.4g}",
            row["paid_by"],
            row["state"],
        )
    console().print(charges)
    typer.echo(
        f"epsilon is read off the summed rho at delta {delta:g}; those of parts do not add up. Worst case of one "
        f"person over four quarters in a row: rho {answer['year_rho']:.4g}, epsilon {answer['year_epsilon']:.3g}."
    )
    ledger = answer["ledger"]
    typer.echo(f"Ledger: {ledger['entries']} entries, newest {ledger['head']}.")
    typer.echo("Note that hash elsewhere; plumb verify --witness HASH says later whether this ledger still holds it.")


def _shares(values: list[str]) -> dict[str, float]:
    out = {}
    for text in values:
        name, _, number = text.partition("=")
        try:
            out[name.strip()] = float(number)
        except ValueError:
            raise InputError(f"--share is {text!r}; write a measure and its part, such as kpi=0.6.") from None
    return out


@budget.command("plan")
def plan_budget(
    directory: Folder = HERE,
    workspace: Chosen = None,
    as_json: Json = False,
    rho: Annotated[list[float] | None, typer.Option(help="Grant per person and quarter; repeat to compare.")] = None,
    share: Annotated[list[str] | None, typer.Option(help="Part of a measure, such as kpi=0.6; repeat.")] = None,
    size: Annotated[list[float] | None, typer.Option(help="Conversions of a geo and week; repeat.")] = None,
    people_per_arm: Annotated[int, typer.Option(help="User test: people in each of two arms.")] = 50_000,
    base_rate: Annotated[float, typer.Option(help="User test: conversions per person.")] = 0.02,
    experiments: Annotated[
        int | None, typer.Option(min=0, help="So many plain user tests in one quarter, in place of those declared.")
    ] = None,
    treated_geos: Annotated[int, typer.Option(help="Geo test: treated geos.")] = 5,
    control_geos: Annotated[int, typer.Option(help="Geo test: control geos.")] = 5,
    test_weeks: Annotated[int, typer.Option(help="Geo test: weeks.")] = 8,
    weeks_before: Annotated[int, typer.Option(help="Geo test: weeks of history.")] = 52,
    geo_conversions: Annotated[float, typer.Option(help="Geo test: conversions of a geo and week.")] = 300.0,
    geo_variation: Annotated[float, typer.Option(help="Geo test: sd of a geo's week beyond counting.")] = 0.05,
    alpha: Annotated[float, typer.Option(help="Two-sided level of the tests.")] = 0.05,
    power: Annotated[float, typer.Option(help="Power of the tests.")] = 0.8,
) -> None:
    """Say what a budget buys: noise per cell, relative error, smallest detectable lift. Reads nothing about people."""
    root = root_of(directory, workspace)

    def work() -> dict[str, Any]:
        from privacy.room import Sizes
        from workflow.budget_plan import plan_of

        cells = tuple(size) if size else Sizes().cells
        sizes = Sizes(cells, people_per_arm, base_rate, treated_geos, control_geos, test_weeks, weeks_before,
                      geo_conversions, geo_variation, alpha, power)  # fmt: skip
        return plan_of(root, rhos=rho or (), shares=_shares(share or []), sizes=sizes, experiments=experiments)

    execute(root, as_json, work, _print_plan)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"


def _print_plan(answer: dict[str, Any]) -> None:
    if answer["door"] == "panel":
        typer.echo(answer["text"])
        return
    sizes = [f"error at {m:g}" for m in answer["sizes"]]
    heads = ("rho", "eps/quarter", "eps/year", "noise sd", *sizes, "user lift", "geo lift")
    table = Table(*heads, box=None, pad_edge=False)
    for row in answer["rows"]:
        errors = row["relative_error"] or [None] * len(sizes)
        lifts = [row[k]["total"] if row[k] else None for k in ("user_lift", "geo_lift")]
        sd = "-" if row["conversions_sd"] is None else f"{row['conversions_sd']:.3g}"
        here = "*" if row["rho"] == answer["rho"] else ""
        table.add_row(f"{row['rho']:g}{here}", f"{row['epsilon_quarter']:.3g}", f"{row['epsilon_year']:.3g}", sd,
                      *map(_percent, (*errors, *lifts)))  # fmt: skip
    console().print(table)
    typer.echo(_meaning(answer))
    detail = Table("measure", "weeks", "vector", "bound C", "rho", "sd per cell", box=None, pad_edge=False)
    for c in answer["cells"]:
        detail.add_row(c["measure"], str(c["weeks"] or "window"), c["vector"], f"{c['bound']:.4g}", f"{c['rho']:.4g}",
                       f"{c['sd']:.4g}")  # fmt: skip
    console().print(detail)
    if answer["tests"]:
        _print_tests(answer["tests"])
    where = "plumb.toml" if answer["declared"] else "the defaults (there is no plumb.toml here)"
    typer.echo(
        f"Per release at rho {answer['rho']:g}, policy of {where}: sd = C / sqrt(2 rho of the vector), in every cell, "
        "empty or full (discrete Gaussian, zCDP). Trials are in units of each component's bound. Formulae: "
        "docs/privacy.md."
    )


def _print_tests(tests: list[dict[str, Any]]) -> None:
    table = Table("declared test", "totals", "strata", "quarters", "rho", "sd", "looks", "rho each", "sd each",
                  "control + treated", "user lift", "without noise", box=None, pad_edge=False)  # fmt: skip
    for t in tests:
        lift = t["lift"] or {"total": None, "without_noise": None}
        looks = (str(t["looks"]), f"{t['look_rho']:.4g}", f"{t['look_sd']:.4g}") if t["looks"] else ("-", "-", "-")
        table.add_row(t["test"], str(t["components"]), str(t["strata"]), str(t["quarters"]), f"{t['rho']:.4g}",
                      f"{t['sd']:.4g}", *looks, " + ".join(f"{n:,.0f}" for n in t["people"]),
                      *map(_percent, lift.values()))  # fmt: skip
    console().print(table)


def _tests_text(answer: dict[str, Any]) -> str:
    """Which tests the column 'user lift' is about."""
    a = answer["assumed"]
    if not answer["tests"]:
        return f"two arms of {a['people_per_arm']:,} people, {a['experiments']} test(s) in the quarter"
    return (
        f"of the declared tests the one that shows least, conversions in its smallest treated arm against the control, "
        f"{a['people_per_arm']:,} people an arm on average; before what strata or earlier values explain"
    )


def _meaning(answer: dict[str, Any]) -> str:
    """What the columns say, and about which business."""
    a, free = answer["assumed"], [answer["rows"][0][k] for k in ("user_lift", "geo_lift")]
    without = [_percent(f["without_noise"] if f else None) for f in free]
    return "\n".join((
        f"* the policy shown below. rho is granted per person and quarter; epsilon at delta {answer['delta']:g}: the "
        "smaller, the better people are protected.",
        "noise sd: of the conversions of each geo and week. error at N: that sd as a share of a cell of N conversions.",
        f"user lift: smallest change of the conversion rate that a test finds with power {a['power']:g} at level "
        f"{a['alpha']:g}: {_tests_text(answer)}; {a['base_rate']:.3g} conversions a person. Without privacy noise "
        f"{without[0]}.",
        f"geo lift: the same of a geo test: {a['treated_geos']} treated and {a['control_geos']} control geos of "
        f"{a['geo_conversions']:g} conversions a week, {a['test_weeks']} weeks after {a['weeks_before']}, varying by "
        f"{a['geo_variation']:.0%} a week beyond counting. Without privacy noise {without[1]}. Other sizes: --help.",
    ))  # fmt: skip


@budget.command("void")
def void_charge(
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="Id of the release, as plumb budget shows it.")],
    proof: Annotated[str, typer.Option(help="Why nothing was drawn: a sentence, or a file whose hash is recorded.")],
    directory: Folder = HERE,
    workspace: Chosen = None,
    as_json: Json = False,
) -> None:
    """Take back a charge for which the ledger shows that nothing was ever drawn; everything else is refused."""
    root = root_of(directory, workspace)

    def work() -> dict[str, Any]:
        from workflow.budget import void
        from workflow.job import Job

        return void(Job.open(root, quiet=True), release, proof)

    def show(answer: dict[str, Any]) -> None:
        given = ", ".join(f"rho {rho:.4g} in {block}" for block, rho in answer["rho"].items())
        typer.echo(f"Voided {answer['release_id']}: {given} may be spent again. The reason is in the ledger.")

    execute(root, as_json, work, show)


def verify(
    release: Annotated[
        list[str] | None, typer.Argument(metavar="[DIR | RELEASE...]", help="Ids or files; all stored ones if none.")
    ] = None,
    workspace: Chosen = None,
    witness: Annotated[str, typer.Option(help="Hash of a ledger entry noted earlier: is it still there?")] = "",
    every: Annotated[bool, typer.Option("--every", help="List every check, not only those that do not hold.")] = False,
    as_json: Json = False,
) -> None:
    """Recompute everything about releases that can be recomputed. Exit code 5 when something does not hold."""
    names = tuple(release or ())
    root = workspace or HERE
    if workspace is None and len(names) == 1 and Path(names[0]).is_dir():
        root, names = Path(names[0]), ()
    outcome: dict[str, bool] = {}

    def work() -> dict[str, Any]:
        from workflow.budget import verify as verify_in
        from workflow.job import Job

        answer = verify_in(Job.open(root, quiet=True), names, witness)
        outcome["failed"] = answer["failed"]
        return answer | {"status": "failed" if answer["failed"] else "ok"}

    execute(root, as_json, work, lambda answer: _print_checks(answer, every))
    if outcome["failed"]:
        raise typer.Exit(NOT_VERIFIED)


def _print_checks(answer: dict[str, Any], every: bool) -> None:
    if answer["door"] == "panel":
        typer.echo(answer["text"])
        return
    for subject in answer["subjects"]:
        counts = {s: sum(c["status"] == s for c in subject["checks"]) for s in ("holds", "fails", "differs", "unknown")}
        verdict = "FAILS" if subject["failed"] else "holds"
        typer.echo(f"{subject['name']}: {verdict} ({', '.join(f'{n} {s}' for s, n in counts.items() if n)})")
        for c in subject["checks"]:
            if every or c["status"] == "fails" or (c["status"] == "differs" and c["name"] != "plumb.toml"):
                typer.echo(f"  {c['status']:<8}{c['name']}: {c['text']}")
    if answer["question"]:
        typer.echo(f"plumb.toml was not compared: {answer['question']}")
    typer.echo("Not checkable: the draws (they have no seed) and the rows about people (they are not kept).")


def add_budget(app: typer.Typer) -> None:
    """Adds the commands to `plumb`."""
    app.add_typer(budget, name="budget")
    app.command()(verify)
