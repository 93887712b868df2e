"""`plumb serve`: explorer and REST in a process of their own, which reads the warehouse only.

Without `[access]` in plumb.toml it listens on this machine only. With it people sign in by OpenID Connect; the
provider's settings lie in `sign-in.toml` beside the workspace's secret.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import os
import socket
import sys
import tomllib
from pathlib import Path
from typing import NoReturn

from app.access import ENV as ACCESS
from app.access import ROLES
from app.store import ENV
from contracts.errors import ConfigError, MissingStep, PlumblineError, WorkspaceError
from privacy.rawzone import require_private
from workflow.config import SignIn, load
from workflow.paths import Workspace, secret_home

SIGN_IN = "PLUMB_SIGN_IN"  # read by app/server.py
SIGN_IN_NAME = "sign-in.toml"
PROVIDER_KEYS = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")


def app_script() -> Path:
    """Path of the installed `app/server.py`."""
    spec = importlib.util.find_spec("app")
    if spec is None or spec.origin is None:
        raise PlumblineError("the explorer is not installed; install Plumbline again (make env).")
    return Path(spec.origin).with_name("server.py")


def command(port: int, address: str) -> list[str]:
    """Command line of the explorer: headless, no usage statistics, no file watching."""
    options = {
        "server.headless": "true",
        "server.port": str(port),
        "server.address": address,
        "client.toolbarMode": "minimal",
        "browser.gatherUsageStats": "false",
        "server.fileWatcherType": "none",
    }
    flags = [f"--{key}={value}" for key, value in options.items()]
    return [sys.executable, "-m", "streamlit", "run", str(app_script()), *flags]


def prepare(root: Path, port: int, address: str) -> dict[str, str]:
    """Environment of the explorer.

    Raises MissingStep without a warehouse, ConfigError for a public address without sign-in or a provider that is not
    described, WorkspaceError where the port is taken.
    """
    workspace = Workspace(root).require()
    if not workspace.warehouse.is_file():
        raise MissingStep(f"{root} has no warehouse yet; run: plumb run {root}")
    config = load(workspace.config)
    if config.access is None and not _loopback(address):
        raise ConfigError(
            f"address {address} can be reached from other machines, and [access] in plumb.toml says nothing of who may "
            "sign in; add [access] (docs/explorer.md), or leave out --address."
        )
    signed = {} if config.access is None else _sign_in(config.access, secret_home(config.project.id) / SIGN_IN_NAME)
    _require_free(address, port)
    clean = {k: v for k, v in os.environ.items() if k not in (ACCESS, SIGN_IN)}
    return clean | {ENV: str(workspace.warehouse.resolve())} | signed


def _sign_in(access: SignIn, provider: Path) -> dict[str, str]:
    """What the explorer must know of roles and provider. Raises ConfigError where the provider is not described."""
    example = "\n".join(["[auth]", *(f'{key} = "..."' for key in PROVIDER_KEYS)])
    if not provider.is_file():
        raise ConfigError(
            f"[access] asks people to sign in; describe the provider in {provider} (mode 0600):\n{example}"
        )
    require_private(provider)
    try:
        auth = tomllib.loads(provider.read_text(encoding="utf-8")).get("auth", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{provider} is not valid TOML: {error}. Mend that line.") from None
    missing = [key for key in PROVIDER_KEYS if not (isinstance(auth, dict) and auth.get(key))]
    if missing:
        raise ConfigError(f"{provider} lacks {', '.join(missing)} in [auth]; it must hold:\n{example}")
    roles = {role: getattr(access, role) for role in ROLES}
    return {ACCESS: json.dumps({"claim": access.claim, "roles": roles}), SIGN_IN: str(provider)}


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def become(port: int, address: str, environment: dict[str, str], *, quiet: bool) -> NoReturn:
    """Turns this process into the explorer, so that whoever started it can also stop it. Does not return."""
    sys.stdout.flush()
    if quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    words = command(port, address)
    os.execve(words[0], words, environment)


def _require_free(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise WorkspaceError(
                f"port {port} on {address} cannot be used ({error.strerror}); choose another with --port."
            ) from None
