"""Every geo estimator by name, as `plumb lift --estimator` and the studies call them."""

from __future__ import annotations

from lift.bayes import BayesianControl
from lift.did import DifferenceInDifferences
from lift.donors import WeightedDonors
from lift.gls import GlsControl
from lift.protocol import GeoEstimator
from lift.tbr import TimeBasedRegression
from lift.trimmed import TrimmedPairs

_ALL: tuple[GeoEstimator, ...] = (
    GlsControl(),
    DifferenceInDifferences(),
    WeightedDonors("did"),
    WeightedDonors("synthetic_control"),
    WeightedDonors("augmented_sc"),
    WeightedDonors("sdid"),
    TimeBasedRegression(),
    TimeBasedRegression("iid"),
    TrimmedPairs(),
    BayesianControl(),
)
ESTIMATORS: dict[str, GeoEstimator] = {e.name: e for e in _ALL}
