"""What the released noise does to credit, and what bounding does, apart: shares and intervals of every model.

One simulated world (`simulate.world`), one quarter. Its journeys and credit tables are bounded as a release would
bound them; then the mechanism's own noise is drawn many times. Against the bounded, noise-free figures: the total
variation of each model's shares, and how often its 90 % intervals hold them. Against figures with bounds so wide that
nobody is cut: the bias of bounding, which no interval covers. Nothing is published and no ledger is touched.

    python -m benchmarks.attribution_noise --people 100000 --rho 0.1 --releases 40
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from attribution.credit import EVERY, Estimate, estimates
from attribution.rule_release import journeys_total, read_rules, rule_statistics
from attribution.statistics import statistics_of
from attribution.tables import read_journeys
from contracts.release import Release
from privacy.bounds import Bound
from privacy.load import LoadSettings, load_people
from privacy.measure_policies import CreditPolicy, JourneyPolicy
from privacy.mechanism import add_noise
from privacy.plan import plan_releases, release_keys
from privacy.policy import PrivacyPolicy
from privacy.publish import exact_totals
from privacy.vectors import ReleasePlan
from simulate.world import simulate
from workflow.init import initialise
from workflow.job import Job
from workflow.people_inputs import people_inputs, question

Key = tuple[str, str]  # model, metric
Exact = dict[str, dict[str, np.ndarray]]


def policy(rho: float, order: int, *, wide: bool) -> PrivacyPolicy:
    """Journeys and credit with `rho` each, at the default bounds, or at bounds that cut nobody."""
    journeys, credit = JourneyPolicy(markov_order=order), CreditPolicy()
    if wide:
        many, money = Bound(2000.0, 0.25), Bound(1e6, 0.25)
        journeys = JourneyPolicy(journeys.max_touches, many, many, money, many, markov_order=order)
        credit = CreditPolicy(conversions=Bound(2000.0, 0.5), revenue=Bound(1e6, 0.5), clipped_share=0.0)
    shares = {"journeys": 0.5, "credit": 0.5}
    return PrivacyPolicy(rho_per_user_quarter=2 * rho, shares=shares, journeys=journeys, credit=credit)


def bounded_totals(job: Job, rules: PrivacyPolicy, raw: Path) -> tuple[tuple[ReleasePlan, ...], Exact]:
    """Plans of the first quarter and its bounded totals before noise."""
    asked = question(job)
    asked = replace(asked, blocks=asked.blocks[:1], experiments=(), arms={})
    plans = plan_releases(asked, rules)
    inputs = replace(people_inputs(job), assignments=None)
    settings = LoadSettings(datetime.now(UTC), raw, b"0" * 32)
    with load_people(inputs, asked, settings) as crowd:
        return plans, {p.release_id: exact_totals(p, crowd, rules, asked) for p in plans}


def release_of(
    job: Job, plan: ReleasePlan, rules: PrivacyPolicy, units: Mapping[str, np.ndarray], *, noisy: bool, stated: bool
) -> Release:
    """The release as a reader gets it, with the noise `noisy`, and with its variance `stated` (else 0)."""
    asked = replace(question(job), experiments=(), arms={})
    keys, frames = release_keys(plan, asked, rules), []
    for v in plan.vectors:
        drawn = add_noise(units[v.name], v.sigma_units) if noisy else units[v.name]
        variance = (v.sigma_units * v.unit) ** 2 if stated else 0.0
        frames.append(keys[v.name].assign(vector=v.name, value=drawn * v.unit, variance=variance))
    table = pd.concat(frames, ignore_index=True)
    return Release(
        plan.release_id, plan.measure, plan.blocks[0], plan.period_start, plan.period_end, table, (), plan.nano / 1e9,
        1.0, 1e-6, {},
    )  # fmt: skip


Made = tuple[tuple[ReleasePlan, ...], Exact]


def _work(job: Job, made: Made, rules: PrivacyPolicy, seed: int, *, noisy: bool, stated: bool) -> dict[Key, Estimate]:
    plans, exact = made
    releases = [release_of(job, p, rules, exact[p.release_id], noisy=noisy, stated=stated) for p in plans]
    found = estimates(releases, job.public.channels, 2000 if noisy else 100, seed, models=EVERY)
    return {(e.model, e.metric): e for e in found}


def truth_of(job: Job, made: Made, rules: PrivacyPolicy) -> dict[Key, Estimate]:
    """Bounded, noise-free credit, with the tables weighted in the total as the noisy ones are.

    The tables are bounded apart, so their totals differ without any noise; which of them the total leans on is set by
    the stated variances. Shares come from the bare counts, without the pull that rows near their noise get.
    """
    bare = _work(job, made, rules, 0, noisy=False, stated=False)
    out = {}
    for key, e in bare.items():
        weighted = _plain(job, made, rules, key)
        share, touched = e.mean[:-1] / e.mean[:-1].sum(), weighted[:-1].sum()
        out[key] = replace(e, mean=np.r_[share * touched, weighted[-1]])
    return out


def _plain(job: Job, made: Made, rules: PrivacyPolicy, key: Key) -> np.ndarray:
    """Credit (K + 1,) of the exact cells under the stated variances; for its total and 'unattributed'."""
    plans, exact = made
    releases = {p.measure: release_of(job, p, rules, exact[p.release_id], noisy=False, stated=True) for p in plans}
    model, metric = key
    if model in EVERY:
        statistics = statistics_of(read_journeys(releases["journeys"], job.public.channels), model, metric)
    else:
        total = journeys_total([releases["journeys"]], releases["credit"], metric, job.public.channels)
        statistics = rule_statistics(read_rules(releases["credit"], job.public.channels), model, metric, total)
    return statistics.credit(statistics.value)


def table_of(
    truth: dict[Key, Estimate], wide: dict[Key, Estimate], drawn: Sequence[dict[Key, Estimate]]
) -> pd.DataFrame:
    """One row a model and metric: bias of bounding, mean and 95 % total variation by noise, coverage."""
    apart, held = defaultdict(list), defaultdict(list)
    for found in drawn:
        for key, e in found.items():
            exact = truth[key]
            apart[key].append(float(np.abs(e.shares()[0] - exact.shares()[0]).sum() / 2))
            held[key] += [r["p05"] <= m <= r["p95"] for r, m in zip(e.intervals, exact.mean, strict=True)]
    rows = [
        {
            "model": model, "metric": metric,
            "bounding_tv": float(np.abs(truth[model, metric].shares()[0] - wide[model, metric].shares()[0]).sum() / 2),
            "noise_tv": np.mean(apart[model, metric]), "noise_tv_p95": np.quantile(apart[model, metric], 0.95),
            "coverage": np.mean(held[model, metric]), "intervals": len(held[model, metric]),
        }
        for model, metric in sorted(truth, key=lambda k: (k[1], k[0]))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attribution_noise", description=__doc__)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--rho", type=float, default=0.1, help="zCDP of each of the tables journeys and credit")
    parser.add_argument("--releases", type=int, default=40)
    parser.add_argument("--order", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CONFIG_HOME"] = f"{name}/config"
        root = Path(name) / "world"
        simulate(root, people=options.people, geos=4, weeks=26, seed=options.seed)
        initialise(root)
        job = Job.open(root, quiet=True)
        rules, wide = (policy(options.rho, options.order, wide=w) for w in (False, True))
        made = bounded_totals(job, rules, Path(name) / "raw")
        loose = bounded_totals(job, wide, Path(name) / "raw2")
        truth = truth_of(job, made, rules)
        unbounded = _work(job, loose, wide, 0, noisy=False, stated=False)
        drawn = [_work(job, made, rules, i, noisy=True, stated=True) for i in range(options.releases)]
    found = table_of(truth, unbounded, drawn)
    total = truth["last_touch", "conversions"].mean
    print(f"{options.people:,} people, {total.sum():,.0f} conversions, {total[:-1].sum():,.0f} with a touch; ", end="")
    print(f"rho {options.rho} a table; {options.releases} releases; Markov of order {options.order}")
    print(found.to_string(index=False, float_format=lambda v: f"{v:.4f}"))
    pooled = np.average(found["coverage"], weights=found["intervals"])
    print(f"90 % intervals hold the bounded figure: {pooled:.1%} of {found['intervals'].sum():,}")


if __name__ == "__main__":
    main()
