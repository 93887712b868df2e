"""Every geo estimator by name, as `plumb lift --estimator` and the studies call them."""

from __future__ import annotations

from lift.gls import GlsControl
from lift.protocol import GeoEstimator

ESTIMATORS: dict[str, GeoEstimator] = {e.name: e for e in (GlsControl(),)}
