"""REST as a client meets it: the same numbers as SQL, formats, pages, tags, tokens, and attempts to get more."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import app_sample_warehouse as sample
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient

from app.access import Access
from app.rest.guard import MAX_BODY
from app.rest.service import Place, create_api
from app.saved import database, remarks
from app.saved.files import STATE_NAME
from contracts.tables import BY_NAME

SIGN_IN = Access(True, "groups", {"admin": ("board",)})
LOCAL = "http://127.0.0.1:8501"


@pytest.fixture
def place(warehouse: Callable[[str], Path], tmp_path: Path) -> Path:
    """A workspace of its own with the full fixture warehouse."""
    path = tmp_path / "warehouse.duckdb"
    shutil.copyfile(warehouse("full"), path)
    (tmp_path / ".plumb").mkdir()
    return path


@pytest.fixture
def client(place: Path) -> Iterator[TestClient]:
    """A client on this machine, without a token."""
    with TestClient(create_api(Place(place, Access())), base_url=LOCAL) as opened:
        yield opened


def token(place: Path, *scopes: str, name: str = "ci", days: int | None = 1) -> dict[str, str]:
    """Headers of a new token."""
    with database.writing(place.parent / STATE_NAME) as con:
        return {"Authorization": f"Bearer {remarks.create_token(con, name, scopes, days)[1]}"}


def plan(place: Path) -> dict[str, float]:
    """A plan that spends something on each channel."""
    return dict.fromkeys(sample.CHANNELS, 1000.0)


@pytest.mark.parametrize("view", sorted(BY_NAME))
def test_every_view_gives_the_rows_of_sql(client: TestClient, place: Path, view: str) -> None:
    got = client.get(f"/views/{view}?limit=100000").json()
    with duckdb.connect(str(place), read_only=True) as con:
        columns = ", ".join(f'"{c}"' for c in BY_NAME[view].names)
        want = con.execute(f"SELECT {columns} FROM {view}").df()
    assert got["total"] == len(want) == len(got["rows"])
    assert [c["name"] for c in got["columns"]] == list(BY_NAME[view].names)
    for name in want.columns:
        held = [row[name] for row in got["rows"] if isinstance(row[name], (int, float))]
        if held and want[name].dtype.kind == "f":
            assert sum(held) == pytest.approx(float(want[name].sum()), rel=1e-12)


def test_filters_are_those_of_sql(client: TestClient, place: Path) -> None:
    got = client.get("/views/effects?scope=week&metric=incremental_kpi&channel=tv,search&from=2025-03-03&to=2025-03-30")
    with duckdb.connect(str(place), read_only=True) as con:
        want = con.execute(
            "SELECT count(*), sum(mean) FROM v_effects WHERE scope = 'week' AND metric = 'incremental_kpi' "
            "AND channel IN ('tv', 'search') AND week BETWEEN DATE '2025-03-03' AND DATE '2025-03-30'"
        ).fetchone()
    rows = got.json()["rows"]
    assert want is not None and len(rows) == want[0] == 8
    assert sum(r["mean"] for r in rows) == pytest.approx(want[1], rel=1e-12)
    surely = client.get("/views/effects?scope=total&confidence=0.9").json()["rows"]
    assert surely and all(r["p05"] > 0 or r["p95"] < 0 for r in surely)


def test_pages_fit_together_and_follow_their_links(client: TestClient) -> None:
    whole = client.get("/views/kpi?limit=100000").json()["rows"]
    seen: list[Any] = []
    address: str | None = "/views/kpi?limit=700"
    while address:
        answer = client.get(address)
        seen += answer.json()["rows"]
        address = answer.json()["next"]
        assert ("next" in answer.links) == (address is not None)
        address = address.removeprefix("/api/v1") if address else None
    assert seen == whole and answer.headers["X-Total-Count"] == str(len(whole))


def test_the_four_formats_hold_the_same_rows(client: TestClient) -> None:
    query = "/views/credit?model=linear&columns=channel,period_start,mean"
    want = pd.DataFrame(client.get(query).json()["rows"])
    parquet = pyarrow.parquet.read_table(io.BytesIO(client.get(f"{query}&format=parquet").content)).to_pandas()
    arrow = pa.ipc.open_stream(
        client.get(query, headers={"Accept": "application/vnd.apache.arrow.stream"}).content
    ).read_pandas()
    csv = pd.read_csv(io.StringIO(client.get(f"{query}&format=csv").text))
    for frame in (parquet, arrow, csv):
        assert frame["mean"].tolist() == pytest.approx(want["mean"].tolist(), rel=1e-12)
        assert frame["period_start"].astype(str).tolist() == want["period_start"].tolist()


def test_a_tag_saves_the_body_until_the_file_changes(client: TestClient, place: Path) -> None:
    first = client.get("/views/effects?scope=total")
    again = client.get("/views/effects?scope=total", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304 and again.content == b""
    assert client.get("/views/effects?scope=geo").headers["ETag"] != first.headers["ETag"]
    fresh = place.with_suffix(".new")
    shutil.copyfile(place, fresh)
    fresh.replace(place)
    changed = client.get("/views/effects?scope=total", headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200


def test_health_and_catalogue_describe_the_file(client: TestClient) -> None:
    assert client.get("/health").json()["project"] == "fixture shop"
    views = {v["name"]: v for v in client.get("/views").json()["views"]}
    assert set(views) == set(BY_NAME) and "channel" in views["v_lift"]["parameters"]
    assert all(c["text"] for v in views.values() for c in v["columns"])


def test_without_a_warehouse_the_answer_is_a_sentence(tmp_path: Path) -> None:
    with TestClient(create_api(Place(tmp_path / "warehouse.duckdb", Access())), base_url=LOCAL) as client:
        answer = client.get("/views/kpi")
    assert answer.status_code == 503 and "run `plumb run`" in answer.json()["error"]


# --- saving


def test_a_scenario_is_saved_changed_decided_and_seen_by_sql(client: TestClient, place: Path) -> None:
    planner, admin = token(place, "read", "plan"), token(place, "read", "approve", name="board")
    made = client.post("/scenarios", json={"name": "Plan A", "plan": plan(place)}, headers=planner)
    assert made.status_code == 201 and made.headers["X-Published"] == "true"
    body = made.json()
    assert body["author"] == "token:ci" and body["total"]["p05"] < body["total"]["mean"] < body["total"]["p95"]
    with duckdb.connect(str(place), read_only=True) as con:
        kept = con.execute("SELECT sum(mean) FROM v_scenarios WHERE scenario_id = ?", [body["id"]]).fetchone()
    assert kept is not None and kept[0] == pytest.approx(sum(c["mean"] for c in body["channels"]), rel=1e-12)
    more = {**plan(place), "tv": 2000.0}
    changed = client.patch(f"/scenarios/{body['id']}", json={"version": 1, "plan": more}, headers=planner).json()
    assert changed["version"] == 2 and changed["plan"]["tv"] == pytest.approx(2000.0)
    stale = client.patch(f"/scenarios/{body['id']}", json={"version": 1, "name": "B"}, headers=planner)
    assert stale.status_code == 409 and "was changed meanwhile by token:ci" in stale.json()["error"]
    decision = {"version": 2, "decision": "approved", "reason": "fits the quarter"}
    assert client.post(f"/scenarios/{body['id']}/decisions", json=decision, headers=planner).status_code == 403
    assert client.post(f"/scenarios/{body['id']}/decisions", json=decision, headers=admin).status_code == 201
    found = client.get(f"/scenarios/{body['id']}").json()
    assert found["decisions"][0]["author"] == "token:board"
    assert client.delete(f"/scenarios/{body['id']}?version=2", headers=planner).status_code == 200
    assert client.get(f"/scenarios/{body['id']}").status_code == 404
    assert client.get(f"/scenarios/{body['id']}?version=1").json()["plan"]["tv"] == pytest.approx(1000.0)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"name": "", "plan": {}}, 422, "name"),
        ({"name": "x", "plan": {"tv": -1}}, 422, "greater than or equal to 0"),
        ({"name": "x", "plan": {"radio": 1}}, 400, "radio"),
        ({"name": "recommended", "plan": dict.fromkeys(sample.CHANNELS, 1)}, 400, "is kept for the scenario"),
        ({"name": "x", "plan": {}, "author": "the boss"}, 422, "Extra inputs"),
    ],
)
def test_a_bad_plan_saves_nothing(
    client: TestClient, place: Path, body: dict[str, Any], status: int, message: str
) -> None:
    answer = client.post("/scenarios", json=body, headers=token(place, "plan"))
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.json()
    assert client.get("/scenarios").json()["scenarios"] == []


# --- attempts to get more


def test_reading_is_free_on_this_machine_and_writing_never_is(client: TestClient, place: Path) -> None:
    assert client.get("/views/kpi").status_code == 200
    assert client.post("/comments", json={}).status_code in (401, 422)
    body = {"subject_kind": "channel", "subject_id": "tv", "text": "why?"}
    refused = client.post("/comments", json=body)
    assert refused.status_code == 401 and refused.headers["WWW-Authenticate"] == "Bearer"
    assert client.post("/comments", json=body, headers=token(place, "read")).status_code == 403
    assert client.post("/comments", json=body, headers=token(place, "comment", name="c")).status_code == 201
    assert client.get("/comments?subject_kind=channel").json()["comments"][0]["author"] == "token:c"


def test_where_people_sign_in_every_door_needs_a_token(place: Path) -> None:
    with TestClient(create_api(Place(place, SIGN_IN)), base_url="https://plumb.example") as client:
        for path in ("/health", "/views", "/views/kpi", "/scenarios", "/comments", "/metrics"):
            assert client.get(path).status_code == 401, path
            assert client.get(path, headers=token(place, "read", name=path)).status_code == 200, path


def test_forged_expired_and_revoked_tokens_are_strangers(place: Path) -> None:
    good, old = token(place, "read", name="good"), token(place, "read", name="old")
    with database.writing(place.parent / STATE_NAME) as con:
        con.execute("UPDATE tokens SET expires_at = '2020-01-01 00:00:00.000' WHERE name = 'old'")
    secret = good["Authorization"].split()[1]
    forged = [
        secret[:-1] + ("B" if secret.endswith("A") else "A"),
        secret + "A",
        secret.upper(),
        "",
        "' OR 1=1 --",
        "plumb_",
        f"x {secret}",
    ]
    with TestClient(create_api(Place(place, SIGN_IN))) as client:
        for text in forged:
            header = {"Authorization": f"Bearer {text}"}
            assert client.get("/views/kpi", headers=header).status_code == 401, text
        assert client.get("/views/kpi", headers={"Authorization": f"Basic {secret}"}).status_code == 401
        assert client.get("/views/kpi", headers=old).status_code == 401
        assert client.get("/views/kpi", headers=good).status_code == 200
        with database.writing(place.parent / STATE_NAME) as con:
            remarks.revoke_token(con, "good")
        assert client.get("/views/kpi", headers=good).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/views/..%2f..%2fstate.sqlite", "/views/%2e%2e/%2e%2e/plumb.toml", "/views/v_kpi;DROP TABLE v_kpi",
        "/views/v_kpi%00", "/views/response_draws", "/views/tokens", "/views/read_csv('/etc/passwd')",
        "/scenarios/..%2f..%2fetc%2fpasswd", "/views/V_KPI%22%20UNION%20SELECT%201--",
    ],
)  # fmt: skip
def test_paths_lead_nowhere_else(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 and "root:" not in answer.text


@pytest.mark.parametrize("value", ["' OR 1=1 --", "tv') UNION SELECT * FROM meta --", "tv; DROP VIEW v_kpi", '"', "%"])
def test_sql_in_a_value_is_a_value(client: TestClient, value: str) -> None:
    assert client.get("/views/effects", params={"channel": value}).json()["total"] == 0
    assert client.get("/views/effects", params={"columns": value}).status_code == 400
    assert client.get("/views/kpi").status_code == 200


def test_a_foreign_name_for_this_machine_is_refused(client: TestClient) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:8501"):
        assert client.get("/views/kpi", headers={"Host": host}).status_code == 421, host
    for host in ("localhost", "127.0.0.1:8501", "[::1]:8501", "[::1]"):
        assert client.get("/views/kpi", headers={"Host": host}).status_code == 200, host


def test_large_bodies_and_haste_are_refused(place: Path) -> None:
    with TestClient(create_api(Place(place, Access()), per_minute=20), base_url=LOCAL) as client:
        header = {**token(place, "plan"), "Content-Type": "application/json"}
        assert client.post("/scenarios", content=b" " * (MAX_BODY + 1), headers=header).status_code == 413
        assert client.post("/scenarios", content=iter([b"{}"]), headers=header).status_code == 411
        codes = [client.get("/views/checks").status_code for _ in range(25)]
    assert codes.count(429) == 25 - 18 and codes[0] == 200


def test_two_workspaces_never_share_an_answer(place: Path, warehouse: Callable[[str], Path]) -> None:
    other = warehouse("aggregate_only")
    with (
        TestClient(create_api(Place(place, Access())), base_url=LOCAL) as one,
        TestClient(create_api(Place(other, Access())), base_url=LOCAL) as two,
    ):
        first, second = one.get("/views/credit"), two.get("/views/credit")
        assert first.json()["total"] > 0 == second.json()["total"]
        crossed = two.get("/views/credit", headers={"If-None-Match": first.headers["ETag"]})
        assert crossed.status_code == 200


def test_the_meter_counts_by_route_and_strangers_share_a_name(client: TestClient) -> None:
    client.get("/views/kpi")
    for i in range(3):
        client.get(f"/nowhere/{i}")
    text = client.get("/metrics").text
    assert 'plumb_rest_requests_total{route="/views/{name}",status="200"} 1.0' in text
    assert 'plumb_rest_requests_total{route="unknown",status="404"} 3.0' in text


def test_twenty_readers_at_once(client: TestClient) -> None:
    codes: list[int] = []
    readers = [
        threading.Thread(target=lambda: codes.append(client.get("/views/credit").status_code)) for _ in range(20)
    ]
    for r in readers:
        r.start()
    for r in readers:
        r.join()
    assert codes == [200] * 20
