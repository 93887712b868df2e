"""`plumb lift` and `plumb design`. Both also read a plain panel file, with no workspace."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from contracts.errors import InputError
from workflow.cli_base import HERE, AsOf, Chosen, Folder, Json, console, execute, root_of
from workflow.cli_steps import run_steps

PanelFile = Annotated[
    Path | None, typer.Option("--panel", metavar="FILE", help="A plain panel file: one row per geo and period.")
]
DateColumn = Annotated[str | None, typer.Option("--date", help="Its date column; recognised when absent.")]
GeoColumn = Annotated[str | None, typer.Option("--geo", help="Its geo column.")]
KpiColumn = Annotated[str | None, typer.Option("--kpi", help="Its KPI column.")]
VarianceColumn = Annotated[str | None, typer.Option("--variance", help="Its column of released noise variance.")]
SpendColumn = Annotated[str | None, typer.Option("--spend", help="Its spend column.")]


def _day(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"{option} is {text!r}; write an ISO date such as 2026-01-31.") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";") if part.strip())


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.replace(",", ";").split(";") if part.strip())
    except ValueError:
        raise InputError(f"{option} is {text!r}; write numbers joined by ';', for example 0.05;0.1.") from None


def _columns(
    day: str | None, geo: str | None, kpi: str | None, variance: str | None, spend: str | None
) -> dict[str, Any]:
    return {"date": day, "geo": geo, "kpi": kpi, "kpi_variance": variance, "spend": spend}


def lift(
    directory: Folder = HERE,
    workspace: Chosen = None,
    as_json: Json = False,
    panel: PanelFile = None,
    treated: Annotated[str, typer.Option(help="Treated geos, joined by ';'.")] = "",
    start: Annotated[str, typer.Option(help="First day of the test.")] = "",
    end: Annotated[str, typer.Option(help="Last day of the change in advertising.")] = "",
    design: Annotated[Path | None, typer.Option(help="A sealed design, in place of the three above.")] = None,
    cool_down: Annotated[int, typer.Option(help="Periods after the end whose outcome still counts.")] = 0,
    exclude: Annotated[str, typer.Option(help="Geos that are no controls, joined by ';'.")] = "",
    estimator: Annotated[str, typer.Option(help="gls_control unless there is a reason.")] = "gls_control",
    spend_delta: Annotated[float | None, typer.Option(help="Spend change that the test made, signed.")] = None,
    iroas: Annotated[bool, typer.Option("--iroas", help="Also the return on the spend change.")] = False,
    dark: Annotated[bool, typer.Option("--dark", help="The test cut spend (go-dark, holdback).")] = False,
    readout: Annotated[Path | None, typer.Option(help="Write the one-page HTML readout of --panel here.")] = None,
    day: DateColumn = None,
    geo: GeoColumn = None,
    kpi: KpiColumn = None,
    variance: VarianceColumn = None,
    spend: SpendColumn = None,
    as_of: AsOf = None,
) -> None:
    """Analyse the experiments of a workspace, or one geo test of a plain panel file."""
    root = root_of(directory, workspace)
    if panel is None:
        if readout is not None:
            execute(root, as_json, _readouts_lie_elsewhere, _show_lift)
        run_steps(root, as_json, as_of, "lift", _tests_of, _show_tests)
        return
    if as_of is not None:
        execute(root, as_json, _no_day_of_a_panel, _show_lift)

    def work() -> dict[str, Any]:
        from workflow.panel_file import read_panel_file
        from workflow.plain_lift import Readout, from_record, read_lift

        record: dict[str, Any] = {}
        asked = Readout(
            _names(treated), date.min, date.min, cool_down, _names(exclude), estimator, spend_delta,
            iroas or spend_delta is not None, dark,
        )  # fmt: skip
        if design is not None:
            asked, record = from_record(design, asked)
        else:
            from dataclasses import replace

            if not asked.treated or not start or not end:
                raise InputError("a readout of a panel file needs --treated, --start and --end, or --design.")
            asked = replace(asked, start=_day(start, "--start"), end=_day(end, "--end"))
        answer = read_lift(read_panel_file(panel, _columns(day, geo, kpi, variance, spend)), asked, readout, record)
        return answer | ({"sealed_design": record} if record else {})

    execute(panel.parent, as_json, work, _show_lift)


def _tests_of(root: Path) -> dict[str, Any]:
    """Rows of v_lift and the checks of the tests, as the warehouse now holds them."""
    from workflow.paths import Workspace
    from workflow.plain_lift import as_json as rows_of
    from workflow.warehouse import read_view

    warehouse = Workspace(root).warehouse
    if not warehouse.is_file():
        return {"lift": [], "checks": []}
    checks, rows = read_view(warehouse, "v_checks"), read_view(warehouse, "v_lift")
    return {
        "lift": rows_of(rows.assign(start=rows["start"].astype(str), end=rows["end"].astype(str))),
        "checks": rows_of(checks[checks["check_name"].str.startswith("lift ")]),
    }


def _show_tests(answer: dict[str, Any]) -> None:
    table = Table("test", "arm", "metric", "estimator", "effect", "90 % interval", "p", box=None, pad_edge=False)
    for row in answer["lift"]:
        if row["published"] or row["estimator"] == "always_valid":
            interval = f"{row['p05']:,.4g} to {row['p95']:,.4g}"
            table.add_row(
                row["experiment"], row["arm"], row["metric"], row["estimator"], f"{row['mean']:,.4g}", interval,
                f"{row['p_value']:.2g}",
            )  # fmt: skip
    if table.rows:
        console().print(table)
    for row in answer["checks"]:
        if row["status"] != "pass":
            typer.echo(f"{row['status']}: {row['subject']}, {row['check_name'].removeprefix('lift ')}: {row['text']}.")


def _no_day_of_a_panel() -> dict[str, Any]:
    raise InputError("--as-of goes with a workspace; a panel file ends where its rows end.")


def _readouts_lie_elsewhere() -> dict[str, Any]:
    raise InputError(
        "--readout goes with --panel; in a workspace plumb lift writes each test's page to readouts/ beside the report."
    )


def _show_lift(answer: dict[str, Any]) -> None:
    share = "" if answer["lift"] is None else f" ({answer['lift']:+.1%})"
    typer.echo(
        f"Incremental outcome {answer['mean']:,.0f}{share}, {answer['level']:.0%} interval {answer['lower']:,.0f} to "
        f"{answer['upper']:,.0f}, p = {answer['p_value']:.3g} ({answer['estimator']}, {answer['inference']})."
    )
    typer.echo(
        f"{answer['history_periods']} periods of history, {answer['window_periods']} in the window, "
        f"{answer['control_geos']} control geos; released noise: {answer['noise_variance_share']:.0%} of the variance."
    )
    if "iroas" in answer:
        typer.echo(
            f"Return {answer['iroas']:.3g} per unit of spend, 90 % interval {answer['iroas_p05']:.3g} to "
            f"{answer['iroas_p95']:.3g}, on a spend change of {answer['spend_delta']:,.0f}."
        )


def design(
    panel: Annotated[
        Path | None, typer.Option("--panel", metavar="FILE", help="A plain panel file; without it, the workspace.")
    ] = None,
    directory: Folder = HERE,
    workspace: Chosen = None,
    as_json: Json = False,
    candidates: Annotated[str, typer.Option(help="Geos that may be treated, joined by ';'; default: all.")] = "",
    sizes: Annotated[str, typer.Option(help="Fewest and most treated geos.")] = "1;3",
    durations: Annotated[str, typer.Option(help="Periods, joined by ';'.")] = "",
    effects: Annotated[str, typer.Option(help="Relative effects for the power columns.")] = "0.025;0.05;0.075;0.1;0.15",
    look_backs: Annotated[int, typer.Option(help="Windows of the history to try the design on.")] = 10,
    force: Annotated[str, typer.Option(help="Geos that are always treated.")] = "",
    exclude: Annotated[str, typer.Option(help="Geos that are neither treated nor controls.")] = "",
    neighbours: Annotated[str, typer.Option(help="Spillover guards, as 'a:b,c;d:e'.")] = "",
    kind: Annotated[str, typer.Option(help="add, heavy_up, go_dark or holdback.")] = "add",
    cost_per_kpi: Annotated[float | None, typer.Option(help="Spend per incremental KPI unit, to price 'add'.")] = None,
    budget: Annotated[float | None, typer.Option(help="Largest spend change.")] = None,
    noise_factors: Annotated[
        str, typer.Option(help="Released variance of the window, times the history's: MDE against epsilon.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the table, sealed record and platform file.")] = None,
    choose: Annotated[int, typer.Option(help="Rank of the row to seal.")] = 1,
    experiment: Annotated[str, typer.Option(help="Name of the test.")] = "geo_test",
    channel: Annotated[str, typer.Option(help="Channel to test; in a workspace, whose spend is changed.")] = "",
    start: Annotated[str, typer.Option(help="First day; default: the day after the history.")] = "",
    day: DateColumn = None,
    geo: GeoColumn = None,
    kpi: KpiColumn = None,
    variance: VarianceColumn = None,
    spend: SpendColumn = None,
) -> None:
    """Choose markets, duration and budget of a geo test: every feasible set, ranked by what it can detect."""
    root = root_of(directory, workspace)

    def work() -> dict[str, Any]:
        from lift.design import DesignSpec
        from workflow.panel_file import read_panel_file
        from workflow.plain_lift import as_json as rows_of
        from workflow.plain_lift import plan, workspace_panel, write_design

        history = (
            read_panel_file(panel, _columns(day, geo, kpi, variance, spend))
            if panel is not None
            else workspace_panel(root, channel)
        )
        low, high = (int(n) for n in (_numbers(sizes, "--sizes") * 2)[:2])
        lengths = durations or ("10;15" if history.period_days == 1 else "4;8")
        spec = DesignSpec(
            candidates=_names(candidates), sizes=(low, high), look_backs=look_backs,
            durations=tuple(int(n) for n in _numbers(lengths, "--durations")),
            effects=_numbers(effects, "--effects"), forced=_names(force), excluded=_names(exclude),
            neighbours=_neighbours(neighbours), kind=kind, cost_per_kpi=cost_per_kpi, budget=budget,
        )  # fmt: skip
        found, against = plan(history, spec, _numbers(noise_factors, "--noise-factors"))
        first = _day(start, "--start") if start else None
        files = (
            write_design(found, history, out, row=choose, experiment=experiment, channel=channel, start=first)
            if out is not None
            else {}
        )
        return {
            "sets_scored": found.sets, "false_positives_on_history": dict(found.size_on_history),
            "designs": rows_of(found.table), "files": files,
            "mde_against_noise": [] if against is None else rows_of(against),
        }  # fmt: skip

    execute(root if panel is None else panel.parent, as_json, work, _show_design)


def _neighbours(text: str) -> dict[str, tuple[str, ...]]:
    out: dict[str, tuple[str, ...]] = {}
    for part in _names(text):
        geo, colon, near = part.partition(":")
        if not colon or not near.strip():
            raise InputError(f"--neighbours has {part!r}; write a geo, a colon and its neighbours, such as 'a:b,c'.")
        out[geo.strip()] = tuple(n.strip() for n in near.split(",") if n.strip())
    return out


def _show_design(answer: dict[str, Any]) -> None:
    table = Table("rank", "treated geos", "periods", "MDE", "share of KPI", "spend change", box=None, pad_edge=False)
    for row in answer["designs"][:15]:
        money = "" if row["spend_change"] is None else f"{row['spend_change']:,.0f}"
        table.add_row(
            str(row["rank"]), row["geos"].replace(";", ", "), str(row["duration"]), f"{row['mde']:.1%}",
            f"{row['share_of_kpi']:.0%}", money,
        )  # fmt: skip
    console().print(table)
    typer.echo(f"{answer['sets_scored']:,} sets scored. MDE: least relative effect found with power 0.8.")
    for name, path in answer["files"].items():
        typer.echo(f"{name}: {path}")
    for row in answer["mde_against_noise"]:
        typer.echo(
            f"released variance × {row['noise_factor']:g}, {row['duration']} periods: best MDE {row['mde']:.1%} "
            f"({row['noise_share']:.0%} of the variance is released noise)"
        )


def add_lift(app: typer.Typer) -> None:
    """Adds both commands."""
    app.command()(lift)
    app.command()(design)
