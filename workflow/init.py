"""`plumb init`: recognises the standard files, writes or completes plumb.toml, and makes the workspace's secret."""

from __future__ import annotations

import dataclasses
import secrets as tokens
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import AbstractTable, InlineTable

from contracts.errors import ConfigError, InputError, PlumblineError
from contracts.panel import NATIONAL
from workflow import guess
from workflow.artifacts import replace_text
from workflow.claims_in import claim_labels, guess_channel
from workflow.config import Attribution, Config, parse
from workflow.config_model import Model
from workflow.config_planning import Planning
from workflow.config_privacy import Privacy
from workflow.files_in import TextTable, header, resolve
from workflow.paths import Workspace, ensure_secret

OFF = {
    "media": "0: off. Only for impressions and clicks that exist nowhere as a public number; see docs/privacy.md",
    "credit": "0: off. Time decay, last non-direct and position rules person by person; see docs/privacy.md",
    "levels": "0: off. Totals of regions, the nation and quarters with noise of their own; see docs/privacy.md",
}
JOURNEY_NOTES = {
    "max_touches": "longer journeys keep their last touches",
    "clipped_share": "part that buys what the bounds of these tables take, as one number each; 0: not released",
    "markov_order": "channels that the Markov model remembers, 1 to 4; declared before the release",
    "path": "all, first_of_run, last_of_run, first_of_channel or last_of_channel; see docs/attribution.md",
    "lookback_days": "touches longer before the conversion do not count; 98: all of the quarter",
}
HEAD = """Plumbline workspace. Every value below is in force as written; edit what you know better.
`plumb check` tells what is wrong, `plumb run` does everything that is out of date."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key to write where it is missing."""

    table: tuple[str, ...]
    key: str
    value: Any
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Initialised:
    """What `plumb init` did."""

    config: Path
    created: bool
    added: tuple[str, ...]
    inputs: tuple[str, ...]
    notes: tuple[str, ...]


def initialise(root: Path) -> Initialised:
    """Writes or completes `root/plumb.toml`. Raises ConfigError when keys already there are wrong."""
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root} is a file; name a folder.")
    root.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(root)
    existed = workspace.config.is_file()
    try:
        text = workspace.config.read_text(encoding="utf-8") if existed else ""
        document = tomlkit.parse(text)
        given: dict[str, Any] = tomllib.loads(text)
    except (tomlkit.exceptions.TOMLKitError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{workspace.config.name} is not valid TOML: {error}. Mend that line.") from None
    if not existed:
        for line in HEAD.splitlines():
            document.add(tomlkit.comment(line))
    notes: list[str] = []
    entries = plan_entries(root, given, notes)
    added = complete(document, entries)
    config = _checked(document.unwrap(), given, notes)
    if added or not existed:
        replace_text(workspace.config, tomlkit.dumps(document))
    ensure_secret(str(document["project"]["id"]))
    inputs = tuple(n for n in type(config.inputs).model_fields if getattr(config.inputs, n)) if config else ()
    return Initialised(
        workspace.config, not existed, added, tuple(n for n in inputs if n != "max_rejected"), tuple(notes)
    )


def _checked(written: dict[str, Any], given: dict[str, Any], notes: list[str]) -> Config | None:
    """The completed file, checked. A fault in keys that a person wrote is an error, a guess that failed is a note."""
    try:
        return parse(written)
    except ConfigError as error:
        if given:
            raise
        notes.append(f"this needs your hand before `plumb run`: {error}")
        return None


def plan_entries(root: Path, given: dict[str, Any], notes: list[str]) -> list[Entry]:
    """Every key of the full file with the value that the folder suggests, in the order in which it is written."""
    paths = _input_paths(root, given)
    tables = _public_tables(root, given, paths, notes)
    panel = _panel(root, given, paths, notes) if "panel" in paths else None
    found = guess.public_guess(tables)
    national = panel is None and _national(root, given, paths, tables, notes)
    if national:
        found = dataclasses.replace(found, geos=(NATIONAL,))
    channels = tuple(panel.spend) if panel else found.channels
    out = _project(root, found, panel)
    out += _inputs(root, given, paths, panel)
    out += _claims(root, given, paths, channels, notes)
    if national:
        out += [
            Entry(("inputs", n, "columns"), "geo", _fixed(NATIONAL)) for n in _without_geo(root, given, paths, tables)
        ]
    out += _privacy(panel)
    out += [Entry(("channels", c), "family", guess.family_of(c), _families(i)) for i, c in enumerate(channels)]
    out += _experiments(root, given, paths, found, notes)
    out += _defaults()
    return out


def _national(
    root: Path, given: dict[str, Any], paths: dict[str, list[str]], tables: dict[str, TextTable], notes: list[str]
) -> bool:
    """Whether some input knows no geo, so that everything is measured nationally."""
    lacking = _without_geo(root, given, paths, tables)
    if lacking and "geos" not in given.get("project", {}):
        notes.append(f"{' and '.join(lacking)} have no geo column, so everything is measured as one geo, {NATIONAL!r}")
        return True
    return False


def _without_geo(
    root: Path, given: dict[str, Any], paths: dict[str, list[str]], tables: dict[str, TextTable]
) -> list[str]:
    """Inputs whose geo is to be fixed: when one lacks the column, the events too count nationally."""
    out: list[str] = [n for n in ("spend", "controls") if n in tables and not tables[n].has("geo")]
    if "events" in paths:
        try:
            names = header(guess.first_file(root, paths["events"]))
        except InputError:
            names = ["geo"]
        mapped = "geo" in given.get("inputs", {}).get("events", {}).get("columns", {})
        if (out or "geo" not in names) and not mapped:
            out = ["events", *out]
    return out


def _fixed(value: str) -> InlineTable:
    table = tomlkit.inline_table()
    table.add("value", value)
    return table


def _families(position: int) -> str:
    return "prospecting, retargeting, brand_search, affiliate, email, offline or other" if position == 0 else ""


def _input_paths(root: Path, given: dict[str, Any]) -> dict[str, list[str]]:
    """Paths of each input: those already in plumb.toml, else the standard names. Events win over a panel."""
    written = given.get("inputs", {}) if isinstance(given.get("inputs", {}), dict) else {}
    out: dict[str, list[str]] = {}
    for name in (*guess.PEOPLE, *guess.PUBLIC, *guess.BESIDE, "panel"):
        section = written.get(name)
        if isinstance(section, dict) and "path" in section:
            out[name] = [section["path"]] if isinstance(section["path"], str) else list(section["path"])
        elif found := guess.standard_files(root, guess.BESIDE.get(name, name)):
            out[name] = found
    if "panel" in out and "panel" not in written and ("events" in out or "events" in written):
        del out["panel"]
    if "panel" in out:
        out = {"panel": out["panel"]} | {n: p for n, p in out.items() if n == "experiments"}
    return out


def _renames(given: dict[str, Any], name: str) -> dict[str, str]:
    columns = given.get("inputs", {}).get(name, {}).get("columns", {})
    return {k: v for k, v in columns.items() if isinstance(v, str)} if isinstance(columns, dict) else {}


def _public_tables(
    root: Path, given: dict[str, Any], paths: dict[str, list[str]], notes: list[str]
) -> dict[str, TextTable]:
    """Public tables that can be read; what cannot is a note here and an error in `plumb check`."""
    out: dict[str, TextTable] = {}
    for name in guess.PUBLIC:
        if name in paths:
            try:
                out[name] = guess.text_of(root, paths[name], name, _renames(given, name))
            except (InputError, ValueError) as error:
                notes.append(f"{name} could not be read for guesses: {error}")
    return out


def _panel(root: Path, given: dict[str, Any], paths: dict[str, list[str]], notes: list[str]) -> guess.PanelGuess | None:
    try:
        return guess.panel_guess(guess.text_of(root, paths["panel"], "panel", {}))
    except (InputError, ValueError) as error:
        notes.append(f"panel could not be read for guesses: {error}")
        return None


def _project(root: Path, found: guess.PublicGuess, panel: guess.PanelGuess | None) -> list[Entry]:
    here = ("project",)
    out = [
        Entry(here, "id", tokens.token_hex(8), "names this workspace; its secret and ledger head lie under this name"),
        Entry(here, "name", root.resolve().name),
        Entry(here, "kpi", panel.kpi if panel else "conversions", "conversions or revenue"),
        Entry(here, "currency", found.currency or "USD", "all money is brought to it with [rates]"),
        Entry(here, "time_zone", "UTC", "zone of times without one"),
        Entry(here, "week_start", found.week_start or "monday"),
        Entry(here, "fiscal_year_start", 1, "month, 1 to 12; a fiscal quarter is the unit of the privacy budget"),
    ]
    if found.geos:
        out.append(Entry(here, "geos", _multiline(found.geos), "people elsewhere count as 'other'"))
    return out


def _multiline(values: tuple[str, ...]) -> Any:
    array = tomlkit.array()
    array.extend(values)
    return array.multiline(len(values) > 8)


def _inputs(
    root: Path, given: dict[str, Any], paths: dict[str, list[str]], panel: guess.PanelGuess | None
) -> list[Entry]:
    out = [Entry(("inputs",), "max_rejected", 0.01, "a load stops above this share of malformed rows")]
    for name, found in paths.items():
        here = ("inputs", name)
        out.append(Entry(here, "path", found[0] if len(found) == 1 else found, "a file, a folder or a glob, or a list"))
        if name == "events":
            out.append(
                Entry(here, "conversion_is_touch", False, "true: a conversion row carries the channel it came from")
            )
            consent = "column" if _has_consent(root, given, found) else "assumed"
            out.append(
                Entry(here, "consent", consent, '"assumed" is shown on every screen; "column" reads it per person')
            )
        if name == "panel" and panel is not None:
            out += [Entry(here, key, value) for key, value in panel.keys.items() if value != []]
            out += [Entry((*here, "spend"), c, column) for c, column in panel.spend.items()]
            out += [Entry((*here, "exposure"), c, column) for c, column in panel.exposure.items()]
    return out


def _has_consent(root: Path, given: dict[str, Any], paths: list[str]) -> bool:
    columns = given.get("inputs", {}).get("events", {}).get("columns", {})
    if isinstance(columns, dict) and "consent" in columns:
        return True
    try:
        return "consent" in header(guess.first_file(root, paths))
    except InputError:
        return False


def _privacy(panel: guess.PanelGuess | None) -> list[Entry]:
    """The privacy defaults; a panel has no people to protect."""
    if panel is not None:
        return []
    default, here = Privacy(), ("privacy",)
    out = [
        Entry(here, "rho_per_user_quarter", default.rho_per_user_quarter, "zCDP budget of one person and quarter"),
        Entry(here, "delta", default.delta, "delta at which epsilon is stated"),
        Entry(here, "min_cohort", default.min_cohort, "screens hide cohorts whose noisy size is smaller"),
        Entry(here, "close_lag_days", default.close_lag_days, "days after its end until a quarter closes: late rows"),
        Entry(here, "retention_days", default.retention_days, "days for which malformed rows and logs are kept"),
    ]
    for index, (name, value) in enumerate(default.shares.model_dump().items()):
        remark = "parts of the budget; reserve stays unspent" if index == 0 else OFF.get(name, "")
        out.append(Entry(("privacy", "shares"), name, value, remark))
    note = "the most that one person can add in a quarter; from policy, never from the data"
    for measure, bounds in (("kpi", default.kpi), ("journeys", default.journeys)):
        for metric, value in bounds.model_dump().items():
            if isinstance(value, dict):
                out.append(Entry(("privacy", measure, metric), "bound", value["bound"], note))
                out.append(Entry(("privacy", measure, metric), "share", value["share"], f"part of the {measure} share"))
            else:
                out.append(Entry(("privacy", measure), metric, value, JOURNEY_NOTES[metric]))
    for measure, pace in default.cadence.model_dump().items():
        note = '"quarter": one batch; "week": a release a week; or [{ weeks = 9, share = 0.4 }, { share = 0.6 }]'
        out.append(Entry(("privacy", "cadence"), measure, pace, note * (measure == "kpi")))
    for metric, value in default.trials.model_dump().items():
        out.append(Entry(("privacy", "trials"), metric, value, "the most that one person adds over a whole test"))
    return out


def _claims(
    root: Path, given: dict[str, Any], paths: dict[str, list[str]], channels: tuple[str, ...], notes: list[str]
) -> list[Entry]:
    """Which channel the names in platform exports plainly are; the others are a note here and asked for by `check`."""
    if "platform_claims" not in paths or not channels:
        return []
    written = given.get("inputs", {}).get("platform_claims", {}).get("channels", {})
    try:
        found = claim_labels(
            resolve(root, paths["platform_claims"], "platform_claims"), _renames(given, "platform_claims")
        )
    except InputError as error:
        notes.append(f"platform_claims could not be read for guesses: {error}")
        return []
    out, open_names = [], []
    for names in found:
        if any(n in written or n in channels for n in names):
            continue
        hit = next(((n, c) for n in names if (c := guess_channel(n, channels))), None)
        if hit is None:
            open_names.append(names[-2] if len(names) > 2 else names[0])
        else:
            out.append(Entry(("inputs", "platform_claims", "channels"), *hit, "which of your channels this name is"))
    if open_names:
        shown = ", ".join(repr(n) for n in dict.fromkeys(open_names))
        notes.append(f'say which channel {shown} is in [inputs.platform_claims.channels], or "" to leave it out')
    return out


def _experiments(
    root: Path, given: dict[str, Any], paths: dict[str, list[str]], found: guess.PublicGuess, notes: list[str]
) -> list[Entry]:
    if "assignments" not in paths or not found.user_tests:
        return []
    out: list[Entry] = []
    try:
        arms = guess.arms_of(
            guess.first_file(root, paths["assignments"]), found.user_tests, _renames(given, "assignments")
        )
    except PlumblineError as error:
        notes.append(f"assignments could not be read for arm names: {error}")
        return []
    for test, names in arms.items():
        here = ("experiments", test)
        declared = given.get("experiments", {}).get(test, {}).get("control_arm")
        out.append(Entry(here, "control_arm", declared or guess.control_arm_of(names), "the reference arm"))
        out.append(Entry(here, "arms", names, "all arms, the reference included"))
    return out


def _defaults() -> list[Entry]:
    model, planning, credit = Model(), Planning(), Attribution()
    return [
        Entry(("model",), "seed", model.seed, "the same seed and releases give the same figures"),
        Entry(("model",), "chains", model.chains),
        Entry(("model",), "warmup", model.warmup),
        Entry(("model",), "draws", model.draws, "per chain, to begin with; doubled up to three times to pass the gate"),
        Entry(("attribution",), "models", credit.models, "from released journeys; shapley_rate can be added"),
        *(
            Entry(("attribution", "position_based"), part, getattr(credit.position_based, part))
            for part in ("first", "middle", "last")
        ),
        Entry(
            ("planning",), "max_change", planning.max_change, "a channel moves by at most this share; budget = current"
        ),
        Entry(("planning",), "horizon_weeks", planning.horizon_weeks, "from the day after the data"),
        Entry(("planning",), "objective", planning.objective, "mean, p10, cvar or probability"),
    ]


def complete(document: tomlkit.TOMLDocument, entries: list[Entry]) -> tuple[str, ...]:
    """Adds every missing key, keeping what is there with its comments and order. Returns the dotted names added."""
    added = []
    for entry in entries:
        table = _table(document, entry.table)
        if table is None or entry.key in table:
            continue
        value = tomlkit.item(entry.value)
        if entry.comment and not isinstance(table, InlineTable):
            value.comment(entry.comment)
        table.add(entry.key, value)
        added.append(".".join((*entry.table, entry.key)))
    return tuple(added)


def _table(document: tomlkit.TOMLDocument, names: tuple[str, ...]) -> AbstractTable | None:
    """The table at `names`, created where missing; None when something else stands there (checked later)."""
    here: Any = document
    for depth, name in enumerate(names):
        if name not in here:
            inside = depth < len(names) - 1
            new = tomlkit.inline_table() if isinstance(here, InlineTable) else tomlkit.table(is_super_table=inside)
            if depth == 0 and len(document.body):
                document.add(tomlkit.nl())
            here.add(name, new)
        here = here[name]
        if not hasattr(here, "add"):
            return None
    return here
