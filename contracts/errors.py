"""One tree of errors; each branch has the exit code that the command line returns.

PlumblineError                 1   something broke that no input explains
+-- UserError                  2   the input, the configuration or the workspace must change
|   +-- ConfigError                a key of plumb.toml is wrong
|   +-- InputError                 an input file breaks its contract
|   +-- ContractError              a value broke its own rule
|   +-- WorkspaceError             the folder is busy, full, or not a workspace
|   +-- PrivacyError               the privacy boundary refuses
|       +-- BudgetExceeded         the release would cost more than is left
|       +-- LedgerError            the ledger is damaged, restored or edited
+-- MissingStep                3   a step that this one reads has not run
+-- GateFailed                 4   the model did not pass its publishing gate
"""

from __future__ import annotations


class PlumblineError(Exception):
    """Base of every error that Plumbline raises on purpose. The message is a sentence for the user."""

    exit_code = 1


class UserError(PlumblineError):
    """Something that the user can mend. The message names the place, the value found and the fix."""

    exit_code = 2


class ConfigError(UserError):
    """A key of plumb.toml is missing, unknown or has an unusable value."""


class InputError(UserError):
    """An input file breaks its contract as a whole (a missing file or column, a negative spend)."""


class ContractError(UserError):
    """A value broke its own rule when it was built."""


class WorkspaceError(UserError):
    """The workspace is busy, full, not writable, or not a workspace at all."""


class PrivacyError(UserError):
    """The privacy boundary refuses."""


class BudgetExceeded(PrivacyError):
    """A release would cost more rho than its block has left."""


class LedgerError(PrivacyError):
    """The ledger is damaged, edited, missing, or older than the head kept outside it."""


class MissingStep(PlumblineError):
    """A step that this one reads has not run yet."""

    exit_code = 3


class GateFailed(PlumblineError):
    """The fitted model did not pass its publishing gate; what was published before stays."""

    exit_code = 4
