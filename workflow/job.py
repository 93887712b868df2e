"""One job on one workspace: what was read, what each step made. The only mutable state of a run, gone with it.

Inputs are read once and lazily; released tables and artifacts are read back from disk, so that a step sees the same
thing whether it follows another in one process or was resumed after a kill.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path

from contracts.errors import InputError, MissingStep
from contracts.evidence import Experiment
from contracts.panel import Panel
from contracts.release import Release
from workflow.artifacts import Artifact, code_version, digest_of, file_hash, keyed_file_hash
from workflow.claims_in import Billing, Claims, read_billing, read_claims
from workflow.config import Config, EventsInput, TableInput, load
from workflow.files_in import resolve
from workflow.panel_build import check_public, from_releases
from workflow.panel_table import from_panel
from workflow.paths import Workspace, read_secret
from workflow.tables_in import PublicTables, read_experiments, read_public

PEOPLE = ("events", "assignments", "identity")  # inputs about people: their hashes are keyed
ROOMS = ("contracts", "privacy", "lift", "mmm", "attribution", "reconcile", "planning", "workflow")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step in this job."""

    step: str
    status: str  # 'done', 'skipped' or 'failed_gate'
    reason: str
    artifact: Artifact | None
    made: bool  # False when the artifact was already there


@dataclass
class Job:
    """A workspace being worked on. `outcomes` grows as steps finish."""

    workspace: Workspace
    config: Config
    as_of: date | None
    quiet: bool
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    published: tuple[Release, ...] = ()  # all that are out
    releases: tuple[Release, ...] = ()  # those that figures are read from: what was corrected is left out

    @staticmethod
    def open(root: Path, as_of: date | None = None, quiet: bool = False) -> Job:
        """Checks the folder and its plumb.toml. Raises WorkspaceError, ConfigError."""
        workspace = Workspace(root).require()
        return Job(workspace, load(workspace.config), as_of, quiet)

    @property
    def panel_door(self) -> bool:
        """True when an aggregate panel is the only source: no user-level data is used."""
        return self.config.inputs.panel is not None

    @cached_property
    def secret(self) -> bytes:
        """The workspace's secret."""
        return read_secret(self.workspace, self.config.project.id)

    @cached_property
    def public(self) -> PublicTables:
        """Spend, controls, experiments, geos, channels and weeks of a workspace with people's events."""
        tables = read_public(self.workspace.root, self.config)
        if not tables.channels:
            raise InputError(
                "no channel is declared: add a spend table, or [channels.NAME] tables to plumb.toml "
                "(channels never come from people's rows)."
            )
        return tables

    @cached_property
    def experiments(self) -> tuple[Experiment, ...]:
        """Experiments of either door."""
        if not self.panel_door:
            return self.public.experiments
        panel, _ = self._panel_input
        return read_experiments(self.workspace.root, self.config, panel.geos, panel.channels)[0]

    @cached_property
    def _panel_input(self) -> tuple[Panel, tuple[Path, ...]]:
        return from_panel(self.workspace.root, self.config)

    @cached_property
    def claims(self) -> Claims | None:
        """What platforms claim for themselves; None without such an input."""
        return read_claims(self.workspace.root, self.config, self.public.channels)

    @cached_property
    def billing(self) -> Billing | None:
        """Totals of the books; None without such an input."""
        return read_billing(self.workspace.root, self.config)

    @property
    def has_spend(self) -> bool:
        """Whether there is spend to put beside the KPI."""
        return self.panel_door or self.public.spend is not None

    @property
    def has_kpi(self) -> bool:
        """Whether a KPI is there to build a panel from."""
        return self.panel_door or any(r.measure == "kpi" for r in self.releases)

    def read_public_tables(self) -> None:
        """Reads every public table of this workspace's door. Raises InputError at the first fault."""
        if self.panel_door:
            _ = (self._panel_input, self.experiments)
        else:
            check_public(self.config, self.public)
            _ = (self.claims, self.billing)

    @cached_property
    def panel(self) -> Panel:
        """The panel that the models read; needs the releases when people's events are the source."""
        if self.panel_door:
            return self._panel_input[0]
        return from_releases(self.config, self.public, self.releases)

    def section(self, name: str) -> TableInput | None:
        """One input of plumb.toml."""
        found: TableInput | None = getattr(self.config.inputs, name)
        return found

    def files(self, name: str) -> list[Path]:
        """Files of one input; empty when plumb.toml does not name it."""
        section = self.section(name)
        return resolve(self.workspace.root, section.paths, name) if section is not None else []

    @cached_property
    def input_hashes(self) -> dict[str, str]:
        """Content hash of every input file; keyed for people's files, plain for public ones."""
        out: dict[str, str] = {}
        for name in PEOPLE:
            for path in self.files(name):
                out[f"{name}:{path.name}"] = keyed_file_hash(path, self.secret)
        for name in ("spend", "controls", "experiments", "platform_claims", "billing", "panel"):
            for path in self.files(name):
                out[f"{name}:{path.name}"] = file_hash(path)
        return out

    def public_hashes(self) -> dict[str, str]:
        """Content hashes of the public tables only."""
        return {k: v for k, v in self.input_hashes.items() if k.split(":")[0] not in PEOPLE}

    @cached_property
    def run_id(self) -> str:
        """Name of this run: the same inputs, configuration, code and date give the same name."""
        parts = {
            "code": code_version(ROOMS),
            "config": self.config.part(*type(self.config).model_fields),
            "inputs": self.input_hashes,
        }
        return f"run-{digest_of({**parts, 'as_of': self.as_of})[:12]}"

    @property
    def consent(self) -> str:
        """'column', 'assumed', or 'none' for the aggregate-only door."""
        events: EventsInput | None = self.config.inputs.events
        return "none" if events is None else events.consent

    def need(self, step: str) -> Outcome:
        """Outcome of an earlier step. Raises MissingStep when it has not run."""
        if step not in self.outcomes:
            raise MissingStep(f"the step {step!r} has not run yet; run: plumb {step.split('_')[0]}")
        return self.outcomes[step]

    def digest(self, step: str) -> str:
        """Content of an earlier step as later steps see it: '' when it was skipped."""
        outcome = self.outcomes.get(step)
        return outcome.artifact.digest if outcome is not None and outcome.artifact is not None else ""
