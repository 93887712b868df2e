"""The tutorial's own family works as printed: the code block is read from docs/extending.md."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from mmm_worlds import make_panel

from mmm.design import build_design
from mmm.spec import ChannelSpec, ModelSpec

TEXT = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")


def test_the_tutorial_s_curve_obeys_the_laws_and_enters_the_model():
    space: dict[str, object] = {"__name__": "tutorial"}
    exec(re.search(r"```python\n(.*?)```", TEXT, re.S).group(1), space)
    family = space["Threshold"]
    stock = np.array([0.0, 0.05, 0.5, 2.0, 9.0])
    share = family.share(stock, 1.0, 1.0)
    assert share[:2].tolist() == [0.0, 0.0] and (np.diff(share[1:]) > 0).all()
    up, down = (family.share(stock[2:] * np.exp(s), 1.0, 1.0) for s in (1e-6, -1e-6))
    assert np.allclose(family.elasticity(stock, 1.0, 1.0)[2:], (np.log(up) - np.log(down)) / 2e-6, rtol=1e-4)
    with jax.enable_x64(True):
        assert np.allclose(family.share(jnp.asarray(stock), 1.0, 1.0, jnp), share)
    panel, _ = make_panel(geos=2, periods=40, channels=2, shares=(0.1, 0.05))
    design = build_design(panel, ModelSpec(channels={"c1": ChannelSpec(saturation=family())}))
    assert [g.saturation.kind for g in design.curves.groups] == ["hill", "threshold"]
