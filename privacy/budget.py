"""What was spent of every quarter's grant, by whom and when: a reading of the ledger's chain. Nothing about people.

| on paper | here | unit |
|---|---|---|
| rho spent in a block | spent_nano | nano-rho; the sum over every release that is charged, published or only reserved |
| grant of a block | cap_nano | nano-rho |

zCDP adds up, so rho of several releases and several blocks is a sum; epsilon is not, it is read off the summed rho.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from contracts.calendar import next_quarter
from privacy.chain import Entry, LedgerPaths, payer_of
from privacy.ledger import open_ledger
from privacy.policy import MEASURES

QUARTERS_PER_YEAR = 4


@dataclass(frozen=True, slots=True)
class Portion:
    """One measure of one quarter: its part of the grant and what is spent of it, nano-rho."""

    measure: str
    cap_nano: int
    spent_nano: int


@dataclass(frozen=True, slots=True)
class Quarter:
    """One block and its grant."""

    block: str
    cap_nano: int
    spent_nano: int
    portions: tuple[Portion, ...]

    @property
    def start(self) -> date:
        """First day of the fiscal quarter."""
        return date.fromisoformat(self.block.removeprefix("quarter-"))


@dataclass(frozen=True, slots=True)
class Recorded:
    """All that the chain says about one charge of a release. A voided release may be charged again: another one."""

    release_id: str
    measure: str
    spec_hash: str
    charges: tuple[tuple[str, int], ...]  # (block, nano-rho)
    reserve_hash: str
    reserved_at: str  # ISO
    by: str
    draws: int = 0
    published_at: str | None = None
    out_hash: str | None = None
    voided: dict[str, object] | None = None  # the recorded proof
    identity: str | None = None  # version of the identity map of the last draw; None before draws named it
    share: str = ""  # whose part of the grant pays: the measure's, or 'reserve'

    @property
    def state(self) -> str:
        """'reserved' (charged, nothing drawn), 'drawn' (charged, not out), 'published' or 'void' (not charged)."""
        if self.voided is not None:
            return "void"
        return "published" if self.out_hash is not None else ("drawn" if self.draws else "reserved")


@dataclass(frozen=True, slots=True)
class Spending:
    """The ledger as its readers need it."""

    quarters: tuple[Quarter, ...]  # oldest first
    releases: tuple[Recorded, ...]  # in the order in which they were charged
    head_seq: int
    head_hash: str

    def live(self, release_id: str) -> Recorded | None:
        """The charge of a release that stands, if any."""
        return next((r for r in self.releases if r.release_id == release_id and r.state != "void"), None)


def read_spending(paths: LedgerPaths, now: datetime) -> Spending | None:
    """Reads and verifies the ledger; None before the first release. Raises LedgerError."""
    if not paths.db.exists() and not paths.head.exists():
        return None
    with open_ledger(paths, now) as ledger:
        return spending(ledger.entries())


def recorded(chain: Iterable[Entry]) -> tuple[Recorded, ...]:
    """Every charge in the chain, with what became of it."""
    out: list[Recorded] = []
    at: dict[str, int] = {}  # position of a release's newest charge
    for e in chain:
        data = e.data
        name = str(data.get("release", ""))
        if e.kind == "reserve":
            at[name] = len(out)
            charges = tuple(sorted((str(b), int(n)) for b, n in data["charges"].items()))
            by, share = str(data.get("by", "")), payer_of(data)
            out.append(Recorded(name, data["measure"], data["spec_hash"], charges, e.row_hash, e.at, by, share=share))
        elif e.kind == "draw":
            out[at[name]] = replace(out[at[name]], draws=out[at[name]].draws + 1, identity=data.get("identity"))
        elif e.kind == "publish":
            out[at[name]] = replace(out[at[name]], published_at=e.at, out_hash=str(data["hash"]))
        elif e.kind == "void":
            out[at[name]] = replace(out[at[name]], voided=data | {"at": e.at})
    return tuple(out)


def spending(chain: Sequence[Entry]) -> Spending:
    """Grants and charges from the chain alone."""
    releases = recorded(chain)
    spent: dict[tuple[str, str], int] = {}
    for r in releases:
        if r.state != "void":
            for block, nano in r.charges:
                spent[block, r.share] = spent.get((block, r.share), 0) + nano
    quarters = []
    for e in chain:
        if e.kind == "block":
            data = e.data
            block, parts = str(data["block"]), data["parts"]
            order = sorted(parts, key=lambda m: (m not in MEASURES, MEASURES.index(m) if m in MEASURES else 0, m))
            portions = tuple(Portion(m, int(parts[m]), spent.get((block, m), 0)) for m in order)
            total = sum(nano for (b, _), nano in spent.items() if b == block)
            quarters.append(Quarter(block, int(data["cap"]), total, portions))
    quarters.sort(key=lambda q: q.block)
    return Spending(tuple(quarters), releases, chain[-1].seq, chain[-1].row_hash)


def maps_of(releases: Iterable[Recorded], block: str) -> tuple[str, ...]:
    """Versions of the identity maps under which a block's published releases counted people ('none': without)."""
    mine = [r for r in releases if r.state == "published" and block in dict(r.charges)]
    return tuple(sorted({r.identity for r in mine if r.identity is not None}))


def fiscal_years(quarters: Sequence[Quarter], first_month: int) -> dict[date, tuple[int, int]]:
    """First day of each fiscal year -> (spent, granted) nano-rho of its quarters so far."""
    out: dict[date, tuple[int, int]] = {}
    for q in quarters:
        year = date(q.start.year - (q.start.month < first_month), first_month, 1)
        spent, cap = out.get(year, (0, 0))
        out[year] = (spent + q.spent_nano, cap + q.cap_nano)
    return out


def worst_year(quarters: Sequence[Quarter]) -> int:
    """Most nano-rho spent in four consecutive fiscal quarters: what one person present in all of them can lose."""
    spent = {q.start: q.spent_nano for q in quarters}
    worst = 0
    for start in spent:
        day, total = start, 0
        for _ in range(QUARTERS_PER_YEAR):
            total += spent.get(day, 0)
            day = next_quarter(day)
        worst = max(worst, total)
    return worst
