"""`plumb serve` runs the explorer as the same process, with the warehouse's path in its environment."""

from __future__ import annotations

import json
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

import pytest

from app.access import from_environment
from contracts.errors import ConfigError, WorkspaceError
from workflow.init import initialise
from workflow.serve import PROVIDER_KEYS, app_script, command, prepare
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


@pytest.fixture
def served(workspace: Path) -> Path:
    """A workspace with a warehouse."""
    initialise(workspace)
    build(workspace / "warehouse.duckdb", workspace / "tables", Content({}, None, {"project": "x"}))
    return workspace


def test_a_public_address_is_refused_until_it_is_said_who_may_sign_in(served: Path) -> None:
    for address in ("0.0.0.0", "192.0.2.7", "::", "shop.example"):
        with pytest.raises(ConfigError, match=r"can be reached from other machines, and \[access\]"):
            prepare(served, free_port(), address)
    assert "PLUMB_ACCESS" not in prepare(served, free_port(), "localhost")


def test_signing_in_needs_a_described_provider_that_is_private(served: Path) -> None:
    config = served / "plumb.toml"
    config.write_text(config.read_text() + '\n[access]\nclaim = "groups"\nadmin = ["board"]\n')
    with pytest.raises(ConfigError, match=r"describe the provider in .*sign-in.toml \(mode 0600\)") as refused:
        prepare(served, free_port(), "0.0.0.0")
    provider = Path(str(refused.value).split("describe the provider in ")[1].split(" (mode 0600)")[0])
    provider.write_text('[auth]\nclient_id = "x"\n')
    provider.chmod(0o644)
    with pytest.raises(WorkspaceError, match="chmod 600"):
        prepare(served, free_port(), "0.0.0.0")
    provider.chmod(0o600)
    with pytest.raises(ConfigError, match="lacks redirect_uri, cookie_secret, client_secret, server_metadata_url"):
        prepare(served, free_port(), "0.0.0.0")
    provider.write_text("[auth]\n" + "\n".join(f'{key} = "x"' for key in PROVIDER_KEYS))
    environment = prepare(served, free_port(), "0.0.0.0")
    assert environment["PLUMB_SIGN_IN"] == str(provider)
    assert from_environment(environment).roles["admin"] == ("board",)


def test_access_without_an_admin_is_a_typo(served: Path, plumb: Plumb) -> None:
    config = served / "plumb.toml"
    config.write_text(config.read_text() + '\n[access]\nplanner = ["marketing"]\n')
    code, answer = plumb("serve", served)
    assert code == 2 and "name at least one value of the claim in 'admin'" in answer["error"]


def test_a_token_is_made_listed_and_revoked(served: Path, plumb: Plumb) -> None:
    code, made = plumb("token", "create", "ci", "--scopes", "read, plan", "-C", served)
    assert code == 0 and made["secret"].startswith("plumb_") and made["scopes"] == ["read", "plan"]
    assert plumb("token", "revoke", "ci", "-C", served)[0] == 0
    found = plumb("token", "list", "-C", served)[1]["tokens"]
    assert [t["name"] for t in found] == ["ci"] and found[0]["revoked_at"]
    assert made["secret"] not in (served / "state.sqlite").read_bytes().decode("latin-1")
    code, answer = plumb("token", "create", "x", "--scopes", "write", "-C", served)
    assert code == 2 and "a scope must be one of read, comment, plan, approve" in answer["error"]


def test_it_answers_and_ends_with_its_process(workspace: Path, plumb: Plumb) -> None:
    initialise(workspace)
    build(workspace / "warehouse.duckdb", workspace / "tables", Content({}, None, {"project": "x"}))
    port = free_port()
    words = [sys.executable, "-m", "workflow.cli", "serve", str(workspace), "--port", str(port), "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        assert _healthy(f"http://127.0.0.1:{port}/_stcore/health", process)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/health", timeout=30) as reply:
            assert json.load(reply)["project"] == "x"
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
