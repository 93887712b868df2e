"""What a model's figure means, in words, from the parameters that its release carries."""

from __future__ import annotations

from typing import Any

from attribution.claims import MODEL as CLAIMED
from attribution.rules import PositionWeights
from contracts.release import Release

PATHS = {
    "first_of_run": "runs of one channel count once, by their first touch",
    "last_of_run": "runs of one channel count once, by their last touch",
    "first_of_channel": "each channel counts once, by its first touch",
    "last_of_channel": "each channel counts once, by its last touch",
}
MEANING = {
    "last_touch": "all credit to the last touch",
    "first_touch": "all credit to the first kept touch",
    "linear": "credit shared equally between touches",
    "shapley": "credit shared equally between the distinct channels of a journey",
    "shapley_rate": "Shapley value of conversion rates by set of channels; journeys that did not convert count",
    CLAIMED: "what the platforms claim for themselves",
}


def definition(model: str, release: Release | None, weights: PositionWeights = PositionWeights()) -> str:
    """One sentence without a full stop: the rule, then which touches count. `release` is None for platform claims."""
    spec: dict[str, Any] = dict(release.metadata.get("spec", {})) if release is not None else {}
    rule = spec.get("credit", {}).get("rules", {}).get(model)
    if rule is not None:
        return "; ".join([_rule(rule), *_touches(spec["credit"])])
    if model == "markov":
        text = f"removal effects of a Markov chain of order {spec.get('markov_order', 1)}, closed form, self-loops kept"
    elif model == "position_based":
        text = f"{weights.first:g} first, {weights.middle:g} between, {weights.last:g} last"
    else:
        text = MEANING.get(model, model)
    return "; ".join([text, *_touches(spec)])


def _rule(rule: dict[str, Any]) -> str:
    if rule["kind"] == "time_decay":
        return f"a touch weighs half for every {rule['half_life_days']:g} days before the conversion"
    if rule["kind"] == "last_non_direct":
        return f"all credit to the last touch outside {', '.join(rule['direct']) or 'none'}"
    return f"{rule['first']:g} first, {rule['middle']:g} between, {rule['last']:g} last"


def _touches(spec: dict[str, Any]) -> list[str]:
    out = [f"the last {spec['max_touches']} touches"] if "max_touches" in spec else []
    out += [f"{spec['lookback_days']} days of look-back"] if "lookback_days" in spec else []
    return out + [PATHS[spec["path"]] for _ in range(spec.get("path") in PATHS)]
