"""One process for the explorer and REST: `streamlit run app/server.py`, with PLUMB_WAREHOUSE naming the file.

`streamlit run` finds the ASGI application below by its name. PLUMB_SIGN_IN names a file with the OpenID Connect
settings (`[auth]` as Streamlit reads them); it lies with the workspace's secrets, never in the workspace.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.routing import Mount

from app import access, store
from app.rest.service import PREFIX, Place, create_api

SIGN_IN = "PLUMB_SIGN_IN"
MAIN = Path(__file__).resolve().parent / "main.py"


def secrets() -> dict[str, Any] | None:
    """Streamlit's secrets from the file that PLUMB_SIGN_IN names; None without one."""
    name = os.environ.get(SIGN_IN, "")
    return tomllib.loads(Path(name).read_text(encoding="utf-8")) if name else None


app = st.App(
    MAIN,
    secrets=secrets(),
    routes=[Mount(PREFIX, app=create_api(Place(store.warehouse_path(), access.from_environment())))],
)
