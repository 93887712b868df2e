"""Cost beside credit: CPA and ROAS of one row. Spend is public and exact; the interval is that of the credit."""

from __future__ import annotations

import math

from contracts.evidence import Credit


def cost_columns(credit: Credit, spend: float | None) -> dict[str, float]:
    """Columns spend, cpa (with p05, p95) and roas (with p05, p95); NaN where they have no meaning.

    `spend` (currency, same period) is None for 'unattributed' and for channels without a spend table. CPA = spend ÷
    conversions is given for the metric conversions, and its interval only where the credit's 90 % interval lies above
    0: a cost per nothing has no size. ROAS = revenue ÷ spend is given for the metric revenue where there is spend.
    """
    out = dict.fromkeys(("spend", "cpa", "cpa_p05", "cpa_p95", "roas", "roas_p05", "roas_p95"), math.nan)
    if spend is None:
        return out
    out["spend"] = spend
    if credit.metric == "conversions" and credit.p05 > 0:
        out |= {"cpa": spend / credit.mean, "cpa_p05": spend / credit.p95, "cpa_p95": spend / credit.p05}
    if credit.metric == "revenue" and spend > 0:
        out |= {"roas": credit.mean / spend, "roas_p05": credit.p05 / spend, "roas_p95": credit.p95 / spend}
    return out
