"""`plumb serve`: the explorer in a process of its own, which reads the warehouse and cannot import the privacy room."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from contracts.errors import MissingStep, PlumblineError, WorkspaceError
from workflow.paths import Workspace

ENV = "PLUMB_WAREHOUSE"


def app_script() -> Path:
    """Path of the installed `app/main.py`."""
    spec = importlib.util.find_spec("app.main")
    if spec is None or spec.origin is None:
        raise PlumblineError("the explorer is not installed; install Plumbline again (make env).")
    return Path(spec.origin)


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
    """Environment of the explorer. Raises MissingStep without a warehouse, WorkspaceError where the port is taken."""
    workspace = Workspace(root).require()
    if not workspace.warehouse.is_file():
        raise MissingStep(f"{root} has no warehouse yet; run: plumb run {root}")
    _require_free(address, port)
    return os.environ | {ENV: str(workspace.warehouse.resolve())}


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
