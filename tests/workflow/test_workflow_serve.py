"""`plumb serve` runs the explorer as the same process, with the warehouse's path in its environment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workflow.init import initialise
from workflow.serve import app_script, command
from workflow.warehouse import Content, build

Plumb = Callable[..., tuple[int, dict[str, Any]]]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_command_is_headless_and_says_nothing_home() -> None:
    words = command(8501, "127.0.0.1")
    assert str(app_script()) in words and "--server.headless=true" in words
    assert "--browser.gatherUsageStats=false" in words and "--server.port=8501" in words


def test_without_a_warehouse_it_says_what_to_run(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    code, answer = plumb("serve", workspace)
    assert code == 3 and f"plumb run {workspace}" in answer["error"]


def test_it_answers_and_ends_with_its_process(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    build(workspace / "warehouse.duckdb", workspace / "tables", Content({}, None, {"project": "x"}))
    port = free_port()
    words = [sys.executable, "-m", "workflow.cli", "serve", str(workspace), "--port", str(port), "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        assert _healthy(f"http://127.0.0.1:{port}/_stcore/health", process)
        code, answer = plumb("serve", workspace, "--port", port)
        assert code == 2 and f"port {port}" in answer["error"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def _healthy(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether the explorer answers before it ends; it is asked for up to two minutes."""
    for _ in range(240):
        if process.poll() is not None:
            return False
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            time.sleep(0.5)
    return False
