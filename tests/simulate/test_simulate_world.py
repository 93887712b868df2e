"""The files of a world: the contract of DESIGN section 2, the experiments, and credit against cause."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simulate.params import CHANNELS, ONLINE, RANGES
from simulate.world import Truth, simulate

SEEDS = (1, 2, 3)
SIZE = {"people": 8_000, "geos": 6, "weeks": 78}


@dataclass(frozen=True)
class Written:
    folder: Path
    truth: Truth
    events: pd.DataFrame  # as written, copies and invalid rows too
    spend: pd.DataFrame
    experiments: pd.DataFrame

    @property
    def seen(self) -> pd.DataFrame:
        """Valid events of consenting people, each once."""
        rows = self.events[self.events.valid & self.events.consent]
        return rows.drop_duplicates(["user_id", "event_id"])

    def trial(self, kind: str, dark: bool = False) -> Any:
        rows = self.experiments[self.experiments.kind == kind]
        if kind == "geo":
            rows = rows[rows.experiment.str.endswith("dark") == dark]
        return rows.iloc[0]


def _read(folder: Path, truth: Truth) -> Written:
    return Written(
        folder=folder,
        truth=truth,
        events=pd.read_parquet(folder / "events.parquet"),
        spend=pd.read_csv(folder / "spend.csv", parse_dates=["date"]),
        experiments=pd.read_csv(folder / "experiments.csv", parse_dates=["start", "end"]),
    )


@pytest.fixture(scope="module", params=SEEDS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp(f"world{request.param}")
    return _read(folder, simulate(folder, **SIZE, seed=request.param))


def _in_window(when: pd.Series, trial: Any) -> pd.Series:
    days = when.dt.tz_localize(None) if when.dt.tz is not None else when
    return (days >= trial.start) & (days < trial.end + pd.Timedelta(days=1))


def test_writes_exactly_the_files_of_the_design(written: Written) -> None:
    files = {p.relative_to(written.folder).as_posix() for p in written.folder.rglob("*") if p.is_file()}
    assert files == {
        "events.parquet",
        "spend.csv",
        "controls.csv",
        "assignments.csv",
        "experiments.csv",
        "truth/effects.parquet",
        "truth/effects_total.csv",
        "truth/experiments.csv",
        "truth/credit.csv",
        "truth/world.json",
    }


def test_columns(written: Written) -> None:
    folder = written.folder
    schema = pq.read_schema(folder / "events.parquet")
    assert {n: str(t) for n, t in zip(schema.names, schema.types, strict=True)} == {
        "event_id": "string",
        "user_id": "string",
        "ts": "timestamp[us, tz=UTC]",
        "event": "string",
        "channel": "string",
        "geo": "string",
        "value": "double",
        "currency": "string",
        "consent": "bool",
        "valid": "bool",
    }
    header = {p.name: list(pd.read_csv(p, nrows=1).columns) for p in folder.glob("*.csv")}
    assert header == {
        "spend.csv": ["date", "geo", "channel", "spend", "currency", "impressions"],
        "controls.csv": ["date", "geo", "population", "price", "promo", "demand_index"],
        "assignments.csv": ["user_id", "experiment", "arm"],
        "experiments.csv": ["experiment", "kind", "channel", "start", "end", "treated", "spend_delta"],
    }
    effects = pq.read_schema(folder / "truth" / "effects.parquet")
    assert effects.names == ["geo", "week", "channel", "incremental"]
    assert effects.field("week").type == pa.date32()
    truth = {p.name: list(pd.read_csv(p, nrows=1).columns) for p in (folder / "truth").glob("*.csv")}
    assert truth["effects_total.csv"] == ["channel", "incremental", "incremental_revenue", "spend"]
    assert truth["experiments.csv"] == ["experiment", "kind", "channel", "incremental", "spend_delta"]


def test_sizes(written: Written) -> None:
    cells = SIZE["geos"] * SIZE["weeks"]
    assert len(written.spend) == cells * len(CHANNELS)
    assert not written.spend.duplicated(["date", "geo", "channel"]).any()
    assert (written.spend.spend >= 0).all()
    controls = pd.read_csv(written.folder / "controls.csv")
    assert len(controls) == cells
    assert not controls.isna().any().any()
    assert set(controls.promo) == {0, 1}
    sizes = controls.groupby("geo").population.first()
    assert RANGES["geo_size_ratio"][0] * 0.97 < sizes.max() / sizes.min() < RANGES["geo_size_ratio"][1] * 1.03
    assert 28 < len(written.events) / SIZE["people"] < 42
    assert len(written.truth.effects) == cells * len(CHANNELS)
    assert (written.truth.effects.incremental >= 0).all()
    assert list(written.truth.totals.channel) == list(CHANNELS)


def test_rows_keep_their_contract(written: Written) -> None:
    events = written.events
    assert set(events.event) == {"impression", "click", "visit", "conversion"}
    assert set(events.channel.dropna()) == set(ONLINE)
    converts = events.event == "conversion"
    assert events.loc[converts, "channel"].isna().all()
    assert (events.loc[converts, "value"] > 0).all()
    assert (events.loc[converts, "currency"] == "EUR").all()
    assert events.loc[~converts, ["value", "currency"]].isna().all().all()
    first, last = pd.Timestamp("2024-01-01", tz="UTC"), pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(weeks=78)
    assert events.ts.between(first, last, inclusive="left").all()
    # A cause would show through times that are finer than those of other rows.
    assert (events.ts.dt.microsecond == 0).all()
    assert (events.groupby("user_id")[["geo", "consent"]].nunique() == 1).all().all()
    assert set(events.geo) == set(written.spend.geo)


def test_copies_are_exact_and_few(written: Written) -> None:
    copies = written.events.duplicated(["user_id", "event_id"])
    assert 0.001 < copies.mean() < 0.004
    assert written.events.drop_duplicates().event_id.is_unique
    assert written.events[~copies].event_id.is_unique


def test_consent_and_validity(written: Written) -> None:
    consent = written.events.groupby("user_id").consent.first().mean()
    assert 0.81 < consent < 0.89
    assert 0.82 - 1e-3 <= written.truth.world["consent_share"] <= 0.88 + 1e-3
    assert 0.985 < written.events.valid.mean() < 0.995


def test_truth_adds_up_with_the_log(written: Written) -> None:
    truth = written.truth
    totals = truth.totals.set_index("channel")
    by_channel = truth.effects.groupby("channel").incremental.sum()
    assert (by_channel.reindex(totals.index) == totals.incremental).all()
    spend = written.spend.groupby("channel").spend.sum().reindex(totals.index)
    assert np.allclose(spend, totals.spend, atol=0.01)
    conversions = written.seen[written.seen.event == "conversion"]
    assert 0.1 < totals.incremental.sum() / len(conversions) < 0.5
    week = conversions.ts.dt.tz_localize(None).dt.to_period("W-SUN").dt.start_time.dt.date
    cells = conversions.groupby([conversions.geo, week]).size()
    caused = truth.effects.groupby(["geo", "week"]).incremental.sum()
    assert (caused <= cells.reindex(caused.index, fill_value=0)).all()
    # More conversions than the causes drew would mean that some were lost or made up on the way to the file.
    per_week = len(conversions) / (SIZE["people"] * SIZE["weeks"]) / truth.world["consent_share"]
    assert 0.9 < per_week / truth.world["scalars"]["conversions_per_person_week"] < 1.1


def test_returned_truth_is_the_written_truth(written: Written) -> None:
    folder, truth = written.folder / "truth", written.truth
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "effects.parquet"), truth.effects)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "effects_total.csv"), truth.totals)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "experiments.csv"), truth.experiments)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "credit.csv"), truth.credit)
    world = json.loads((folder / "world.json").read_text())
    assert world["ranges"] == {k: list(v) for k, v in RANGES.items()}
    assert [c["name"] for c in world["channels"]] == list(CHANNELS)


def test_experiments_table(written: Written) -> None:
    table = written.experiments
    assert sorted(table.kind) == ["geo", "geo", "user"]
    assert (table.start.dt.day_of_week == 0).all() and (table.end.dt.day_of_week == 6).all()
    assert ((table.end - table.start).dt.days == 55).all()
    dark, heavy, user = written.trial("geo", dark=True), written.trial("geo"), written.trial("user")
    assert not set(dark.treated.split(";")) & set(heavy.treated.split(";"))
    assert dark.channel == "search" and np.isnan(dark.spend_delta)
    assert heavy.channel in ("social", "tv") and heavy.spend_delta > 0
    assert user.channel == "retargeting" and user.spend_delta > 0 and pd.isna(user.treated)
    truth = written.truth.experiments.set_index("experiment")
    assert truth.incremental[dark.experiment] < 0 < truth.incremental[user.experiment]
    assert truth.spend_delta[dark.experiment] < 0


def test_go_dark_is_dark(written: Written) -> None:
    trial = written.trial("geo", dark=True)
    treated = trial.treated.split(";")
    spend = written.spend[written.spend.channel == "search"]
    inside = _in_window(spend.date, trial)
    assert (spend[inside & spend.geo.isin(treated)].spend == 0).all()
    assert (spend[inside & ~spend.geo.isin(treated)].spend > 0).all()
    seen = written.seen[written.seen.channel == "search"]
    inside = _in_window(seen.ts, trial)
    assert not (inside & seen.geo.isin(treated)).any()
    assert (inside & ~seen.geo.isin(treated)).any()


def test_design_spend_delta_is_near_the_true_one(written: Written) -> None:
    trial = written.trial("geo", dark=True)
    spend = written.spend[written.spend.channel == "search"]
    treated = spend.geo.isin(trial.treated.split(";"))
    inside, before = _in_window(spend.date, trial), spend.date < trial.start
    ratio = spend[treated & before].spend.sum() / spend[~treated & before].spend.sum()
    derived = spend[treated & inside].spend.sum() - ratio * spend[~treated & inside].spend.sum()
    true = written.truth.experiments.set_index("experiment").spend_delta[trial.experiment]
    assert derived == pytest.approx(true, rel=0.35)


def test_heavy_up_is_heavier(written: Written) -> None:
    trial = written.trial("geo")
    spend = written.spend[written.spend.channel == trial.channel]
    treated, inside = spend.geo.isin(trial.treated.split(";")), _in_window(spend.date, trial)
    # 2.5 times the plan: three fifths of what was spent is the test's.
    assert trial.spend_delta == pytest.approx(spend[treated & inside].spend.sum() * 0.6, rel=1e-3)


def test_holdout_arms(written: Written) -> None:
    trial = written.trial("user")
    arms = pd.read_csv(written.folder / "assignments.csv")
    assert arms.user_id.is_unique and set(arms.experiment) == {trial.experiment}
    assert arms.arm.value_counts().to_dict() == {"control": SIZE["people"] // 2, "exposed": SIZE["people"] // 2}
    assert set(written.events.user_id) <= set(arms.user_id)
    touches = written.events[(written.events.channel == "retargeting")]
    touches = touches[_in_window(touches.ts, trial)].merge(arms, on="user_id")
    assert set(touches.arm) == {"exposed"}
    # Before the window the arms convert alike: the difference of two Poisson-like counts, 5 sd.
    early = written.seen[(written.seen.event == "conversion")].merge(arms, on="user_id")
    early = early[early.ts.dt.tz_localize(None) < trial.start]
    per_person = early.groupby(["arm", "user_id"]).size()
    gap = per_person["exposed"].sum() - per_person["control"].sum()
    assert abs(gap) < 5 * np.sqrt((per_person**2).sum())


def _plain_last_touch(seen: pd.DataFrame, days: int) -> pd.Series:
    touches = seen[seen.channel.notna()].sort_values("ts")
    conversions = seen[seen.event == "conversion"].sort_values("ts")
    found = pd.merge_asof(
        conversions[["user_id", "ts"]],
        touches[["user_id", "ts", "channel"]],
        on="ts",
        by="user_id",
        tolerance=pd.Timedelta(days=days),
    )
    return found.channel.fillna("unattributed").value_counts()


def test_last_touch_overstates_search_and_retargeting(written: Written) -> None:
    true = written.truth.totals.set_index("channel").incremental
    credit = _plain_last_touch(written.seen, 30)
    for channel in ("search", "retargeting"):
        assert 2.2 < credit[channel] / true[channel] < 7.0
    prospecting = ["social", "video"]
    assert credit[prospecting].sum() < 0.95 * true[prospecting].sum()
    assert "tv" not in credit
    counted = written.truth.credit.set_index("channel").last_touch_30d
    assert counted.sum() == credit.sum()
    # Ties in time between two touches of one person may be broken either way.
    assert (counted - credit.reindex(counted.index, fill_value=0)).abs().max() <= 5


def test_intent_draws_search_and_retargeting(written: Written) -> None:
    seen = written.seen
    buys = seen[seen.event == "conversion"].groupby("user_id").size()
    touches = seen.groupby(["user_id", "channel"]).size().unstack(fill_value=0)
    often = touches.index.isin(buys.index[buys >= 3])
    lift = touches[often].mean() / touches[~often].mean()
    assert lift[["search", "retargeting"]].min() > 1.5 * lift[["social", "video"]].max()


def test_same_seed_same_files_and_other_seed_other_world(tmp_path: Path) -> None:
    size = {"people": 1_000, "geos": 4, "weeks": 26}
    calls: list[tuple[str, float]] = []
    one = simulate(tmp_path / "a", **size, seed=5, progress=lambda part, share: calls.append((part, share)))
    two = simulate(tmp_path / "b", **size, seed=5)
    other = simulate(tmp_path / "c", **size, seed=6)
    for path in sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name
    assert one.world == two.world
    assert one.world["channels"] != other.world["channels"]
    shares = [share for _, share in calls]
    assert shares == sorted(shares) and calls[-1] == ("done", 1.0)


def test_start_moves_the_calendar(tmp_path: Path) -> None:
    truth = simulate(tmp_path, people=500, geos=4, weeks=26, start=date(2023, 7, 3))
    assert truth.effects.week.min() == date(2023, 7, 3)
    assert pd.read_csv(tmp_path / "spend.csv").date.min() == "2023-07-03"
    assert pd.read_parquet(tmp_path / "events.parquet").ts.min() >= pd.Timestamp("2023-07-03", tz="UTC")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"people": 100}, r"people must lie between 500 and .*; got 100\."),
        ({"people": 900, "geos": 30}, r"people must be at least 50 per geo, here 1500 for 30 geos; got 900\."),
        ({"geos": 3}, r"geos must lie between 4 and 500; got 3\."),
        ({"weeks": 12}, r"weeks must lie between 26 and 520; got 12\."),
        ({"weeks": 52.0}, r"weeks must be a whole number; got 52\.0\."),
        ({"seed": -1}, r"seed must lie between 0 and .*; got -1\."),
        ({"start": date(2024, 1, 2)}, r"start must be a Monday; got 2024-01-02, a Tuesday\."),
    ],
)
def test_bad_sizes(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path / "out", **({"people": 1000, "geos": 4, "weeks": 26} | change))
    assert not (tmp_path / "out").exists()
