"""Every view of the warehouse, column by column, with type and unit. docs/tables.md is generated from this file.

Stamp columns stand on every row: which run and release made it, and on what evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.intervals import INTERVAL


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `type` is a DuckDB type, `unit` is in words ('' where it has none)."""

    name: str
    type: str
    unit: str
    text: str


@dataclass(frozen=True, slots=True)
class View:
    """One view: `key` names the columns that make a row unique."""

    name: str
    grain: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(c.name for c in self.columns)


def _interval(unit: str, what: str) -> tuple[Column, ...]:
    text = {"mean": f"expected {what}", "sd": f"standard deviation of the {what}"}
    return tuple(
        Column(n, "DOUBLE", unit, text.get(n, f"{n[1:].lstrip('0')} % quantile of the {what}")) for n in INTERVAL
    )


STAMP = (
    Column("run_id", "VARCHAR", "", "run that wrote the row"),
    Column("release_id", "VARCHAR", "", "releases read, joined by ';' ('panel' for the aggregate-only door)"),
    Column("model_version", "VARCHAR", "", "hash of the model's specification and code version"),
    Column("as_of", "TIMESTAMP", "UTC", "when the step that made the row ran"),
    Column("evidence_ids", "VARCHAR", "", "ids of the evidence used, joined by ';'"),
)


def _view(
    name: str, grain: str, key: tuple[str, ...], *columns: Column | tuple[Column, ...], stamp: bool = True
) -> View:
    flat = [c for group in columns for c in (group if isinstance(group, tuple) else (group,))]
    return View(name, grain, (*(STAMP if stamp else ()), *flat), key)


_CHANNEL = Column("channel", "VARCHAR", "", "channel, named as in spend")
_PERIOD = (
    Column("period_start", "DATE", "", "first day of the period"),
    Column("period_end", "DATE", "", "last day of the period"),
)
_GEO = Column("geo", "VARCHAR", "", "geo; NULL where not in scope")
_WEEK = Column("week", "DATE", "", "first day of the week; NULL where not in scope")
_EFFECT_COLUMNS = (
    Column("status", "VARCHAR", "", "'published', or 'failed_gate' when no run has passed yet"),
    Column("scope", "VARCHAR", "", "'total', 'geo', 'week' or 'geo_week'"),
    _GEO,
    _WEEK,
    _CHANNEL,
    Column("metric", "VARCHAR", "", "'incremental_kpi', 'incremental_revenue', 'share', 'roi' or 'mroi'"),
    *_interval("by metric: KPI units, currency, share of KPI, currency per currency", "figure"),
)
_CREDIT_COLUMNS: tuple[Column | tuple[Column, ...], ...] = (
    Column(
        "model",
        "VARCHAR",
        "",
        "'last_touch', 'first_touch', 'linear', 'position_based', 'markov', 'shapley', 'shapley_rate', a rule of "
        "[privacy.credit.rules], or 'platform_claimed' (docs/attribution.md)",
    ),
    Column("channel", "VARCHAR", "", "channel, or 'unattributed'"),
    Column("metric", "VARCHAR", "", "'conversions' or 'revenue'"),
    _PERIOD,
    *_interval("conversions or currency", "credit"),
    Column("definition", "VARCHAR", "", "what the model counts, with the parameters of its release"),
    Column("spend", "DOUBLE", "currency", "spend of the channel in the period; NULL where the spend table has none"),
    Column("cpa", "DOUBLE", "currency per conversion", "spend ÷ credit; NULL where the credit's interval holds 0"),
    Column("cpa_p05", "DOUBLE", "currency per conversion", "5 % quantile"),
    Column("cpa_p95", "DOUBLE", "currency per conversion", "95 % quantile"),
    Column("roas", "DOUBLE", "currency per currency", "credited revenue ÷ spend; rows of revenue only"),
    Column("roas_p05", "DOUBLE", "currency per currency", "5 % quantile"),
    Column("roas_p95", "DOUBLE", "currency per currency", "95 % quantile"),
)
_WEIGHTS = (
    Column("weight_lift", "DOUBLE", "share", "part of the precision that comes from lift tests"),
    Column("weight_mmm", "DOUBLE", "share", "part that comes from the model"),
    Column("weight_credit", "DOUBLE", "share", "part that comes from attribution"),
    Column("weight_family", "DOUBLE", "share", "part borrowed from the channel's family and the pool's priors"),
)


def _returns(name: str, meaning: str) -> tuple[Column, ...]:
    unit = "KPI units per currency"
    return (
        Column(name, "DOUBLE", unit, f"{meaning}, expected"),
        *(Column(f"{name}_p{q}", "DOUBLE", unit, f"{q} % quantile") for q in (10, 50, 90)),
    )


_SCENARIO_ID = (
    Column("scenario_id", "VARCHAR", "", "id of a scenario that a person saved; '' for one that `plumb plan` made"),
    Column("version", "INTEGER", "", "saved version, counted from 1; 0 for a scenario that `plumb plan` made"),
)
_SCENARIO = (
    Column("scenario", "VARCHAR", "", "name of the scenario"),
    Column("spend", "DOUBLE", "currency", "planned spend"),
    *_interval("KPI units", "incremental outcome of the spend, carry-over after the period included"),
)

VIEWS: tuple[View, ...] = (
    _view(
        "v_kpi",
        "geo × week × metric",
        ("geo", "week", "metric"),
        Column("geo", "VARCHAR", "", "geo ('other' = people whose geo is not declared)"),
        Column("week", "DATE", "", "first day of the week"),
        Column("metric", "VARCHAR", "", "'conversions', 'revenue', 'active_users', or the panel's KPI"),
        Column("value", "DOUBLE", "KPI units or currency", "released value, signed, never clipped"),
        Column("variance", "DOUBLE", "units²", "known variance of the released noise"),
        Column("suppressed", "BOOLEAN", "", "true where the noisy cohort is under min_cohort: do not display"),
    ),
    _view(
        "v_levels",
        "block × metric × level × area × week, where levels are released",
        ("block", "metric", "level", "area", "week"),
        Column("block", "VARCHAR", "", "privacy block (fiscal quarter)"),
        Column("metric", "VARCHAR", "", "'conversions', 'revenue' or 'active_users'"),
        Column("level", "VARCHAR", "", "'geo', 'region', 'nation', or 'quarter' (a geo's whole quarter)"),
        Column("area", "VARCHAR", "", "geo, region or 'nation'"),
        Column("week", "DATE", "", "first day of the week; NULL for a whole quarter"),
        Column("value", "DOUBLE", "conversions, currency or people", "released value, signed: the primary record"),
        Column("variance", "DOUBLE", "units²", "known variance of the released noise"),
        Column("consistent", "DOUBLE", "as value", "least-squares value, parts add up to wholes; NULL for a quarter"),
        Column("consistent_variance", "DOUBLE", "units²", "its variance; errors of one week are correlated"),
    ),
    _view(
        "v_effects",
        "scope × geo × week × channel × metric, latest calibrated run",
        ("scope", "geo", "week", "channel", "metric"),
        _EFFECT_COLUMNS,
    ),
    _view(
        "v_effects_history",
        "as v_effects, every published run",
        ("run_id", "scope", "geo", "week", "channel", "metric"),
        _EFFECT_COLUMNS,
    ),
    _view(
        "v_curves",
        "channel × spend",
        ("channel", "spend"),
        _CHANNEL,
        Column("spend", "DOUBLE", "currency per period", "spend of the channel in one period over all geos"),
        *_interval("KPI units per period", "steady response to that spend"),
        Column("marginal", "DOUBLE", "KPI units per currency", "expected response to one more unit of currency"),
        Column("observed", "BOOLEAN", "", "true inside the range of observed spend"),
    ),
    _view(
        "v_lift",
        "experiment × arm × metric × estimator",
        ("experiment", "arm", "metric", "estimator"),
        Column("experiment", "VARCHAR", "", "name in the experiments table"),
        Column("estimator", "VARCHAR", "", "estimator used"),
        Column("kind", "VARCHAR", "", "'geo' or 'user'"),
        _CHANNEL,
        Column("arm", "VARCHAR", "", "treated arm of a user test; '' for a geo test"),
        Column("metric", "VARCHAR", "", "'conversions', 'revenue', 'visits' or the panel's KPI; or a rate, 'X per Y'"),
        Column("start", "DATE", "", "first day of the test"),
        Column("end", "DATE", "", "last day of the test, or of the newest look at a running one"),
        *_interval(
            "metric units, signed", "incremental outcome over the treated scope and window; of a rate, its difference"
        ),
        Column("p_value", "DOUBLE", "", "two-sided, from the statistic that gives the interval"),
        Column(
            "p_value_family", "DOUBLE", "", "the same allowing for all arms of the test (Dunnett); NULL with one arm"
        ),
        Column("noise_variance_share", "DOUBLE", "share", "part of the variance that is released noise"),
        Column("spend_delta", "DOUBLE", "currency, signed", "spend change that the test made"),
        Column("iroas", "DOUBLE", "metric units per currency", "incremental outcome / spend_delta"),
        Column("iroas_p05", "DOUBLE", "metric units per currency", "5 % quantile"),
        Column("iroas_p95", "DOUBLE", "metric units per currency", "95 % quantile"),
        Column("published", "BOOLEAN", "", "true: the reading that was declared, read by model and reconciliation"),
    ),
    _view(
        "v_credit",
        "model × channel × metric × period",
        ("model", "channel", "metric", "period_start"),
        *_CREDIT_COLUMNS,
    ),
    _view(
        "v_credit_history",
        "as v_credit, every published version; `as_of` says when each was made",
        ("run_id", "model", "channel", "metric", "period_start"),
        *_CREDIT_COLUMNS,
    ),
    _view(
        "v_parity",
        "comparison × channel × metric × period",
        ("kind", "subject", "other", "channel", "metric", "period_start"),
        Column("kind", "VARCHAR", "", "'models', 'change', 'versions', 'total' or 'claims'"),
        Column("subject", "VARCHAR", "", "model, platform or total that is compared"),
        Column("other", "VARCHAR", "", "what it is compared with: a model, a period, a version, the books"),
        Column("channel", "VARCHAR", "", "channel; '' for all together"),
        Column("metric", "VARCHAR", "", "'conversions', 'revenue' or 'spend'"),
        _PERIOD,
        Column("value", "DOUBLE", "share", "total variation, change of a share, relative gap, or claimed ÷ total"),
        Column("sd", "DOUBLE", "share", "standard deviation of `value` from the released noise; NULL where not known"),
        Column("z", "DOUBLE", "", "value ÷ sd, or the chi-square statistic of all channels; NULL where no test"),
        Column("p_value", "DOUBLE", "", "two-sided, corrected for the number of channels; NULL where no test"),
        Column("threshold", "DOUBLE", "by kind", "limit of `p_value` for 'change', of the size of `value` else"),
        Column("status", "VARCHAR", "", "'pass' or 'warn'"),
        Column("text", "VARCHAR", "", "one sentence"),
    ),
    _view(
        "v_incrementality",
        "channel × credit model × period: the whole stretch, and each quarter",
        ("channel", "model", "period_start", "period_end"),
        _CHANNEL,
        Column("model", "VARCHAR", "", "credit model"),
        _PERIOD,
        *_interval("true ÷ credited", "incrementality factor (NULL where the credit's interval holds 0)"),
        Column("incremental_kpi", "DOUBLE", "KPI units", "reconciled incremental outcome, expected"),
        Column("incremental_p05", "DOUBLE", "KPI units", "5 % quantile"),
        Column("incremental_p95", "DOUBLE", "KPI units", "95 % quantile"),
        Column("credited", "DOUBLE", "KPI units", "credit given by the model, expected"),
        *_WEIGHTS,
        Column("flag", "VARCHAR", "", "'' or why the sources disagree"),
    ),
    _view(
        "v_reconciled",
        "channel × period: the whole stretch, and each quarter",
        ("channel", "period_start", "period_end"),
        _CHANNEL,
        _PERIOD,
        *_interval("KPI units", "reconciled incremental outcome"),
        Column("spend", "DOUBLE", "currency", "spend of the channel in the period"),
        *_returns("iroas", "incremental outcome ÷ spend"),
        *_returns("mroas", "outcome of the next unit of spend: iROAS × (1 + kappa)"),
        *_WEIGHTS,
        Column(
            "borrowed", "BOOLEAN", "", "true where more than a quarter of the precision comes from family and priors"
        ),
        Column("severity", "VARCHAR", "", "worst conflict of the channel: '', 'amber' (|z| > 2) or 'red' (|z| > 3)"),
        Column("flag", "VARCHAR", "", "'' or why the sources disagree"),
    ),
    _view(
        "v_conflicts",
        "channel × source × subject",
        ("channel", "source", "subject"),
        _CHANNEL,
        Column("source", "VARCHAR", "", "'lift', 'mmm', 'credit', or 'sign' (a test against 'more spend brings more')"),
        Column("subject", "VARCHAR", "", "experiment, 'mmm', or the source of the credit"),
        Column("z", "DOUBLE", "", "normal score against everything else; > 0: it shows more effect than the rest"),
        Column("severity", "VARCHAR", "", "'', 'amber' (|z| > 2) or 'red' (|z| > 3)"),
        Column(
            "p_sign", "DOUBLE", "share", "probability from the test alone that more spend brings less; rows of 'sign'"
        ),
        Column("text", "VARCHAR", "", "one sentence; '' where there is no conflict"),
        Column("reasons", "VARCHAR", "", "what can explain it, joined by '; ': window, estimand, range, incident, ..."),
        Column("widened", "BOOLEAN", "", "true where the channel's answer was widened because of a red conflict"),
    ),
    _view(
        "v_pool_scores",
        "source × experiment that it had not seen",
        ("source", "experiment"),
        Column("source", "VARCHAR", "", "'mmm', 'pool' (everything but the test), or a credit model at face value"),
        Column("experiment", "VARCHAR", "", "experiment"),
        _CHANNEL,
        Column("quarter", "VARCHAR", "", "calendar quarter in which the test ended"),
        Column("predicted", "DOUBLE", "KPI units", "median of the predicted effect of the test"),
        Column("p05", "DOUBLE", "KPI units", "5 % quantile of what the test was expected to show"),
        Column("p95", "DOUBLE", "KPI units", "95 % quantile"),
        Column("observed", "DOUBLE", "KPI units", "what it showed"),
        Column("std_error", "DOUBLE", "KPI units", "its standard error"),
        Column("covered", "BOOLEAN", "", "true where the 90 % interval held it"),
        Column("log_score", "DOUBLE", "nats", "log predictive density at what it showed; compare within one test"),
    ),
    _view(
        "v_pool_priors",
        "prior of the pool",
        ("name",),
        Column("name", "VARCHAR", "", "key under [reconcile.priors] in plumb.toml"),
        Column("value", "DOUBLE", "as unit", "value in force"),
        Column("unit", "VARCHAR", "", "'log': on the log scale; 'share': of the figure it belongs to"),
        Column("meaning", "VARCHAR", "", "what it says"),
        Column("changed", "BOOLEAN", "", "true where plumb.toml changed the default"),
    ),
    _view(
        "v_scenarios",
        "scenario × channel",
        ("scenario_id", "scenario", "channel"),
        _SCENARIO[0],
        _CHANNEL,
        _PERIOD,
        _SCENARIO[1:],
        Column("spend_change", "DOUBLE", "share", "spend against the current split when it was priced − 1"),
        Column("within", "DOUBLE", "KPI units", "expected part of the outcome inside the period"),
        Column("beyond", "DOUBLE", "KPI units", "expected part after the period, from carry-over"),
        Column("carried_in", "DOUBLE", "KPI units", "what earlier spend still brings in the period; in no outcome"),
        Column("extrapolated", "BOOLEAN", "", "true where the plan goes beyond anything observed: interval widened"),
        Column("locked", "BOOLEAN", "", "true where a person locked the channel"),
        Column("of_record", "BOOLEAN", "", "true for the plan of record"),
        _SCENARIO_ID,
        Column("author", "VARCHAR", "", "who saved the version; '' for the job"),
        Column("note", "VARCHAR", "", "what the author wrote about it"),
        Column("outdated", "BOOLEAN", "", "true where it was priced with other draws than `response_draws` holds"),
    ),
    _view(
        "v_scenario_cells",
        "scenario × channel × period × geo",
        ("scenario_id", "scenario", "channel", "period_start", "geo"),
        _SCENARIO[0],
        _CHANNEL,
        _PERIOD,
        _GEO,
        _SCENARIO[1],
        *_interval("KPI units", "what the plan adds in that week and geo"),
        _SCENARIO_ID,
    ),
    _view(
        "v_forecast",
        "scenario × week × scope",
        ("scenario", "period_start", "scope"),
        Column("scenario", "VARCHAR", "", "'current' or 'recommended'"),
        Column("period_start", "DATE", "", "first day of the week"),
        Column("scope", "VARCHAR", "", "'week', or 'to_date': from the start of the plan to the end of that week"),
        *_interval("KPI units", "KPI as it will be released, its noise included"),
        Column("demand", "DOUBLE", "KPI units", "expected without paid media"),
        Column("carried_in", "DOUBLE", "KPI units", "expected from spend before the plan"),
        Column("plan", "DOUBLE", "KPI units", "expected from the plan's spend"),
    ),
    _view(
        "v_next_tests",
        "candidate test",
        ("test",),
        Column("test", "VARCHAR", "", "name of the candidate: channel, what is done, weeks"),
        _CHANNEL,
        Column("kind", "VARCHAR", "", "'geo, go dark' or 'geo, heavy-up'"),
        Column("treated", "VARCHAR", "", "treated geos, joined by ';'"),
        Column("weeks", "DOUBLE", "weeks", "length of the test"),
        Column("spend_change", "DOUBLE", "currency, signed", "spend that the test adds or takes away"),
        Column("std_error", "DOUBLE", "KPI units", "standard error of the lift by design, released noise included"),
        Column("noise_share", "DOUBLE", "share", "part of that variance that is released noise"),
        Column("mde", "DOUBLE", "KPI units", "smallest lift that the test finds with 80 % power"),
        Column("expected_lift", "DOUBLE", "KPI units, signed", "lift that is expected now"),
        Column("cost", "DOUBLE", "currency", "media added or outcome forgone, less what it brings or saves; >= 0"),
        Column("value", "DOUBLE", "by unit", "expected value of sample information over the planning period"),
        Column("value_se", "DOUBLE", "by unit", "its Monte Carlo standard error"),
        Column("perfect_information", "DOUBLE", "by unit", "what knowing everything would be worth: the most"),
        Column("net_value", "DOUBLE", "currency", "value in money − cost; NULL where a KPI unit has no value"),
        Column("unit", "VARCHAR", "", "unit of `value`: the KPI, 'revenue' or 'margin'"),
        Column("ess", "DOUBLE", "draws", "median effective draws behind a decision"),
        Column("share_changed", "DOUBLE", "share", "of outcomes that would change the plan"),
        Column("decision", "VARCHAR", "", "which outcome changes the plan, and how"),
    ),
    _view(
        "v_decision_loss",
        "source × channel",
        ("source", "channel"),
        Column("source", "VARCHAR", "", "'credit: MODEL', 'mmm', 'mmm without lifts' or 'lift'"),
        Column("channel", "VARCHAR", "", "channel on which the source alone decides; '' for all that it speaks of"),
        Column("factor", "DOUBLE", "source ÷ reconciled", "what the source says the channel brought; NULL for all"),
        Column("spend_change", "DOUBLE", "share", "its spend in the source's plan against the best plan − 1"),
        *_interval("by unit", "loss over the planning period from following the source alone"),
        Column("unit", "VARCHAR", "", "unit of the loss: the KPI, 'revenue' or 'margin'"),
        Column("money", "DOUBLE", "currency", "expected loss in money; NULL where a KPI unit has no value"),
        Column("probability", "DOUBLE", "share", "that following the source loses"),
    ),
    _view(
        "v_comments",
        "comment",
        ("comment_id",),
        Column("comment_id", "VARCHAR", "", "id of the comment"),
        Column("subject_kind", "VARCHAR", "", "'scenario', 'channel', 'experiment' or 'run'"),
        Column("subject_id", "VARCHAR", "", "what it is about: `scenario_id`, or the name of a channel, test or run"),
        Column("author", "VARCHAR", "", "who wrote it"),
        Column("text", "VARCHAR", "", "what was written"),
        Column("written_at", "TIMESTAMP", "UTC", "when"),
        stamp=False,
    ),
    _view(
        "v_approvals",
        "decision on a version of a saved scenario",
        ("approval_id",),
        Column("approval_id", "VARCHAR", "", "id of the decision"),
        *_SCENARIO_ID,
        Column("decision", "VARCHAR", "", "'approved' or 'rejected'"),
        Column("reason", "VARCHAR", "", "why, in the words of the author"),
        Column("author", "VARCHAR", "", "who decided"),
        Column("decided_at", "TIMESTAMP", "UTC", "when"),
        stamp=False,
    ),
    _view(
        "v_releases",
        "release × vector",
        ("release_id", "vector"),
        Column("run_id", "VARCHAR", "", "run that published the release"),
        Column("release_id", "VARCHAR", "", "id, the same for the same declared question"),
        Column("measure", "VARCHAR", "", "'kpi', 'journeys', 'trials', 'diagnostics', 'media', 'credit' or 'levels'"),
        Column("block", "VARCHAR", "", "privacy block (fiscal quarter)"),
        _PERIOD,
        Column("vector", "VARCHAR", "", "bounded vector inside the release"),
        Column("rho", "DOUBLE", "zCDP rho", "cost of the vector"),
        Column("epsilon", "DOUBLE", "at delta", "epsilon of the whole release at delta"),
        Column("delta", "DOUBLE", "", "delta at which epsilon is stated"),
        Column("l2_bound", "DOUBLE", "metric units", "bound of one user's vector (L2)"),
        Column("sigma", "DOUBLE", "metric units", "noise standard deviation per cell"),
        Column("published_at", "TIMESTAMP", "UTC", "time of publication"),
        Column("hash", "VARCHAR", "", "SHA-256 of the published file"),
        Column("correction", "INTEGER", "", "0 for a first release, else which correction of its measure and block"),
        Column("superseded_by", "VARCHAR", "", "the correction that is read in its place; '' where it is read itself"),
        stamp=False,
    ),
    _view(
        "v_charges",
        "release × block",
        ("release_id", "block"),
        Column("release_id", "VARCHAR", "", "release charged"),
        Column("measure", "VARCHAR", "", "its measure"),
        Column("block", "VARCHAR", "", "block that pays"),
        Column("rho", "DOUBLE", "zCDP rho", "charge"),
        Column("block_spent", "DOUBLE", "zCDP rho", "spent by the block so far"),
        Column("block_cap", "DOUBLE", "zCDP rho", "grant of the block"),
        Column("charged_at", "TIMESTAMP", "UTC", "time of the charge"),
        Column("paid_by", "VARCHAR", "", "share of the grant that pays: the measure's, or 'reserve' (a correction)"),
        stamp=False,
    ),
    _view(
        "v_runs",
        "run × step",
        ("run_id", "step"),
        Column("run_id", "VARCHAR", "", "run"),
        Column("step", "VARCHAR", "", "step of the job"),
        Column("status", "VARCHAR", "", "'done', 'skipped' or 'failed_gate'"),
        Column("reason", "VARCHAR", "", "why a step was skipped or failed, else ''"),
        Column("started_at", "TIMESTAMP", "UTC", "start"),
        Column("seconds", "DOUBLE", "s", "duration"),
        stamp=False,
    ),
    _view(
        "v_lineage",
        "output × input",
        ("output", "input"),
        Column("output", "VARCHAR", "", "table or artifact"),
        Column("input", "VARCHAR", "", "what it was made from"),
        Column("input_hash", "VARCHAR", "", "content hash (keyed for user-level files)"),
        stamp=False,
    ),
    _view(
        "v_checks",
        "check × subject",
        ("check_name", "subject"),
        Column("check_name", "VARCHAR", "", "what was checked"),
        Column("subject", "VARCHAR", "", "file, parameter, channel or release"),
        Column("status", "VARCHAR", "", "'pass', 'warn' or 'fail'"),
        Column("value", "DOUBLE", "by check", "figure behind the verdict; never an exact count of people's rows"),
        Column("threshold", "DOUBLE", "by check", "limit"),
        Column("text", "VARCHAR", "", "one sentence"),
        stamp=False,
    ),
)

BY_NAME: dict[str, View] = {v.name: v for v in VIEWS}
