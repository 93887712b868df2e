"""Where sources contradict each other, how badly, and what that does to the answer.

|z| above 2 is amber, above 3 red. A red conflict between a test and the rest widens both: each side's bias gets an
sd of half the distance between them on the log scale, and the pool is sampled again, so that the answer covers both and
settles on neither. Credit that lies far from what other channels teach says something about credit: its bias is free to
say so and its weight falls by itself; the test and the model decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm

from reconcile.influence import Linear, free_bias, lift_rows, predicted_lift, score, without
from reconcile.inputs import PoolInputs
from reconcile.prepare import Arrays, Prepared
from reconcile.priors import PoolPriors

AMBER, RED = 2.0, 3.0
SIGN_PROBABILITY = 0.95
MAX_WIDENING = 1.0  # log

Severity = Literal["", "amber", "red"]


@dataclass(frozen=True, slots=True)
class Conflict:
    """One source against all the others, about one channel. z > 0: the source shows more effect than the rest."""

    channel: str
    source: Literal["lift", "mmm", "credit", "sign"]
    subject: str  # experiment, 'mmm', or the source of the credit
    z: float
    severity: Severity
    p_sign: float  # probability, from the source alone, that more spend brings less; NaN where it cannot say so
    gap: float  # log of what the source shows over what the rest expects; NaN where it cannot be taken
    text: str


def severity(z: float) -> Severity:
    """Colour of a normal score."""
    return "red" if abs(z) > RED else "amber" if abs(z) > AMBER else ""


def find(inputs: PoolInputs, data: Prepared, linear: Linear, priors: PoolPriors, seed: int) -> tuple[Conflict, ...]:
    """Every source of every channel against the rest, flagged or not (severity '')."""
    return (*_lifts(inputs, data.arrays, linear, priors, seed), *_biases(inputs, data, linear, priors))


def _lifts(inputs: PoolInputs, arrays: Arrays, linear: Linear, priors: PoolPriors, seed: int) -> list[Conflict]:
    out = []
    of = arrays.lift_channel.argmax(axis=1) if len(arrays.lift) else np.empty(0, dtype=int)
    for c in sorted(set(of.tolist())):
        mine = np.flatnonzero(of == c)
        mean, covariance = without(linear, lift_rows(linear, mine), arrays, priors)
        for k in mine.tolist():
            e = inputs.lifts.estimates[k]
            effect, sd = predicted_lift(mean, covariance, k, arrays, priors, seed)
            up = float(arrays.lift_sign[k])
            z = up * score(effect, sd, e.mean)
            rest = "the model" if arrays.held[c] else "other evidence"
            text = f"test {e.experiment} shows {'more' if z > 0 else 'less'} than {rest} expects (z = {z:.1f})"
            expected = float(np.median(effect))
            gap = np.log(e.mean / expected) if e.mean * expected > 0 else np.sign(z) * MAX_WIDENING
            out.append(
                Conflict(
                    e.channel, "lift", e.experiment, z, severity(z), np.nan, float(gap), text if severity(z) else ""
                )
            )
            wrong = float(norm.cdf(-up * e.mean / e.std_error))
            colour: Severity = "red" if wrong > norm.cdf(RED) else "amber" if wrong > SIGN_PROBABILITY else ""
            says = (
                f"test {e.experiment} says that more spend brings less, with probability {wrong:.0%}" if colour else ""
            )
            out.append(
                Conflict(
                    e.channel,
                    "sign",
                    e.experiment,
                    float(norm.ppf(min(max(1 - wrong, 1e-15), 1 - 1e-15))),
                    colour,
                    wrong,
                    np.nan,
                    says,
                )
            )
    return out


def _biases(inputs: PoolInputs, data: Prepared, linear: Linear, priors: PoolPriors) -> list[Conflict]:
    arrays, out = data.arrays, []
    model = free_bias(linear, "mmm_bias", arrays, priors)
    for c in np.flatnonzero(arrays.held):
        z = -float(model[c])
        text = f"the model shows {'more' if z > 0 else 'less'} than all other evidence (z = {z:.1f})"
        out.append(
            Conflict(inputs.channels[c], "mmm", "mmm", z, severity(z), np.nan, np.nan, text if severity(z) else "")
        )
    credit = free_bias(linear, "channel_bias", arrays, priors)
    for (g, c), z in np.ndenumerate(credit):
        if data.tracked[g, c]:
            text = (
                f"{data.sources[g]} credit the channel with {'more' if z > 0 else 'less'} per incremental outcome than "
                f"other channels of its family (z = {z:.1f})"
            )
            out.append(Conflict(inputs.channels[c], "credit", data.sources[g], float(z), severity(z), np.nan, np.nan,
                                text if severity(z) else ""))  # fmt: skip
    return out


def widened(inputs: PoolInputs, arrays: Arrays, found: tuple[Conflict, ...]) -> Arrays | None:
    """Arrays in which both sides of every red conflict between a test and the rest doubt themselves; None if none."""
    red = [f for f in found if f.source == "lift" and f.severity == "red"]
    if not red or not inputs.lifts_pooled:
        return None
    bias, extra = arrays.mmm_bias_sd.copy(), arrays.lift_extra.copy()
    names = [e.experiment for e in inputs.lifts.estimates]
    for conflict in red:
        half = min(abs(conflict.gap), MAX_WIDENING) / 2
        c = inputs.channels.index(conflict.channel)
        bias[c] = max(bias[c], np.hypot(arrays.mmm_bias_sd[c], half))
        for k in (i for i, n in enumerate(names) if n == conflict.subject):
            extra[k] = np.hypot(arrays.lift_extra[k], half)
    return arrays._replace(mmm_bias_sd=bias, lift_extra=extra)
