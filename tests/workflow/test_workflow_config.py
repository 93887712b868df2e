"""Every fault in plumb.toml becomes one sentence with the key, the value and the fix."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.errors import ConfigError
from mmm.adstock import WeibullPdf
from mmm.fit import RunFlags
from mmm.saturation import Hill, Logistic
from mmm.spec import ModelSpec
from privacy.policy import PrivacyPolicy
from privacy.rules import PositionWeights, TimeDecay
from workflow.config import load, parse
from workflow.step_fit import spec_of

BASE: dict[str, Any] = {"project": {"id": "abcd"}, "inputs": {"events": {"path": "events.csv"}}}


def broken(*keys: str, value: object) -> dict[str, Any]:
    """BASE with one value set at a path of keys."""
    out = copy.deepcopy(BASE)
    here = out
    for key in keys[:-1]:
        here = here.setdefault(key, {})
    here[keys[-1]] = value
    return out


CASES = [
    (("privacy", "rho_per_user_quater"), 0.2, r"rho_per_user_quater is not .*; did you mean rho_per_user_quarter\?"),
    (("privcy",), {"delta": 1e-6}, r"\[privcy\] is not a known key; did you mean privacy\?"),
    (("privacy", "kpi", "revenue", "bound"), 0, r"\[privacy.kpi.revenue\] bound is 0; it must be greater than 0"),
    (("privacy", "delta"), 2, r"\[privacy\] delta is 2; it must be less than"),
    (("privacy", "shares", "kpi"), 0.9, r"\[privacy\] shares: the shares add up to 1.4; lower some"),
    (("project", "kpi"), "sales", r"\[project\] kpi is 'sales'; use 'conversions' or 'revenue'"),
    (("project", "time_zone"), "Mars", r"\[project\] time_zone is 'Mars'; use an IANA time zone"),
    (("project", "week_start"), "funday", r"\[project\] week_start is 'funday'; use one of monday"),
    (("project", "geos"), ["a", "other"], r"'other' is the name of everything undeclared"),
    (("project", "currency"), "dollars", r"\[project\] currency is 'dollars'; write three capital letters such as USD"),
    (("channels", "tv", "famly"), "offline", r"\[channels.tv\] famly is not a known key; did you mean family\?"),
    (("rates", "EUR"), -1, r"\[rates\] EUR is -1; it must be greater than 0"),
    (("rates", "eur"), 1.1, r"\[rates\] 'eur': write three capital letters such as USD"),
    (("inputs", "events", "columns", "x"), {"vale": 1}, r"columns.x\] vale is not .*; did you mean value\?"),
    (("inputs", "panel"), {"path": "p.csv", "spend": {"a": "a_spend"}}, r"both \[inputs.panel\] and \[inputs.events\]"),
    (("privacy", "cadence", "kpi"), "month", r"\[privacy.cadence\] kpi is 'month'; write .* or parts"),
    (("privacy", "cadence", "kpi"), [{"week": 4, "share": 1}], r"week is not a known key; did you mean weeks"),
    (("privacy", "cadence", "trials"), "week", r"trials is not a known key; known here: journeys, kpi"),
    (("privacy", "shares", "media"), 0.2, r"\[privacy\] shares: the shares add up to 1.2; lower some"),
    (("privacy", "media", "chanels"), ["tv"], r"\[privacy.media\] chanels is not .*; did you mean channels\?"),
    (("privacy", "credit", "lookback_days"), 200, r"\[privacy.credit\] lookback_days is 200; it must be 98 or less"),
    (("privacy", "credit", "rules", "a"), {"kind": "shapley"}, r"credit.rules.a\] kind is 'shapley'; use 'time_decay'"),
    (("privacy", "credit", "rules", "a"), {"kind": "time_decay", "first": 0.4},
     r"credit.rules\] a: first is no parameter of 'time_decay', which takes half_life_days; remove it"),
    (("privacy", "levels", "quarter_bounds"), 0.5, r"\[privacy.levels\] quarter_bounds is 0.5; it must be 1"),
    (("channels", "tv", "adstock"), "weibul", r"\[channels.tv.adstock\] kind is 'weibul'; use 'negative_binomial'"),
    (("channels", "tv", "adstock"), {"kind": "geometric", "delay": 2.0},
     r"\[channels.tv\] adstock: delay is no parameter of 'geometric'; remove it"),
    (("channels", "tv", "prior"), {"on": "cpa", "mean": 1, "sd": 1}, r"\[channels.tv.prior\] on is 'cpa'; use 'roi'"),
    (("channels", "tv"), {"roi_mean": 1, "prior": {"on": "roi", "mean": 1, "sd": 1}}, r"both prior and roi_mean are"),
    (("model", "saturation"), {"kind": "root", "half": [1, 1]}, r"half is no parameter of 'root'; remove it"),
    (("model", "draws"), "many", r"\[model\] draws is 'many'; write a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "value", "sentence"), CASES, ids=[".".join(k) for k, _, _ in CASES])
def test_a_fault_names_key_value_and_fix(keys: tuple[str, ...], value: object, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(broken(*keys, value=value))


def test_a_missing_id_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"\[project\] id is missing; add it, or let `plumb init`"):
        parse({"project": {}, "inputs": {"events": {"path": "e.csv"}}})


def test_neither_door_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither"):
        parse({"project": {"id": "abcd"}, "inputs": {}})


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "plumb.toml"
    path.write_text("[project]\nid = \n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"plumb.toml is not valid TOML: .*line 2"):
        load(path)


def test_the_declared_policy_is_what_the_room_reads() -> None:
    policy = parse(broken("privacy", "kpi", "conversions", value={"bound": 7.5, "share": 0.5})).privacy.policy()
    assert policy.kpi["conversions"].bound == 7.5
    assert policy.kpi["revenue"].share == 0.2


def test_a_bound_that_no_integer_can_hold_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="privacy.kpi.conversions.bound"):
        parse(broken("privacy", "kpi", "conversions", value={"bound": 1e12, "share": 0.5})).privacy.policy()


def test_the_sampling_defaults_are_the_models_own() -> None:
    ours, theirs = parse(BASE).model, RunFlags()
    assert (ours.chains, ours.warmup, ours.draws, ours.doublings) == (
        theirs.chains, theirs.warmup, theirs.draws, theirs.doublings,
    )  # fmt: skip


def test_declared_media_and_credit_reach_the_room() -> None:
    rules = {"fast": {"kind": "time_decay", "half_life_days": 2}, "ends": {"kind": "position", "middle": 0}}
    raw = broken("privacy", "credit", value={"rules": rules, "lookback_days": 14})
    raw["privacy"]["media"] = {"channels": ["tv"], "clicks": {"bound": 3, "share": 0.2}}
    policy = parse(raw).privacy.policy()
    assert policy.credit.rules == {"fast": TimeDecay(2.0), "ends": PositionWeights(0.4, 0.0, 0.4)}
    assert (policy.credit.lookback_days, policy.media.channels, policy.media.clicks.bound) == (14, ("tv",), 3)


def test_the_defaults_are_those_of_the_room() -> None:
    policy, room = parse(BASE).privacy.policy(), PrivacyPolicy()
    assert (policy.media, policy.credit, policy.journeys, policy.kpi) == (
        room.media, room.credit, room.journeys, dict(room.kpi),
    )  # fmt: skip
    assert policy.share_nano("media") == policy.share_nano("credit") == policy.share_nano("levels") == 0


def test_declared_regions_reach_the_room() -> None:
    policy = parse(
        broken("privacy", "levels", value={"regions": {"coast": ["a", "b"]}, "nation": 0.4})
    ).privacy.policy()
    assert dict(policy.levels.regions) == {"coast": ("a", "b")} and policy.levels.nation == 0.4


def test_the_model_reads_what_channels_and_model_declare():
    raw = broken("model", value={"saturation": "logistic", "roi": [1.5, 1.0], "max_lag_days": 56})
    raw["channels"] = {
        "tv": {
            "adstock": {"kind": "weibull_pdf", "retention": [2, 5]},
            "prior": {"on": "mroi", "mean": 0.8, "sd": 0.4},
        },
        "search": {"roi_mean": 2.0, "saturation": {"kind": "hill", "slope": [1.3, 0.2]}, "saturate_first": True},
        "email": {},
    }
    spec = spec_of(parse(raw))
    assert spec.saturation == Logistic()
    assert spec.max_lag_days == 56
    assert spec.roi.location == pytest.approx(np.log(1.5) - spec.roi.scale**2 / 2)
    assert set(spec.channels) == {"tv", "search"}
    tv, search = spec.channels["tv"], spec.channels["search"]
    assert tv.adstock == WeibullPdf(retention_a=2, retention_b=5)
    assert (tv.prior.kind, tv.prior.scale) == ("mroi", pytest.approx(np.sqrt(np.log(1.25))))
    assert search.saturation == Hill(slope_median=1.3, slope_scale=0.2)
    assert search.saturate_first
    assert search.prior.kind == "roi"
    assert spec_of(parse(BASE)) == ModelSpec()
