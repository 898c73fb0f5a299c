"""Recorded flow through the production `apply`, held against the truth.

Fills row by row, book states after given inputs, the report's SHA-256, the
checksum of the mixed workload, the edge cases.  Ledger, fees and invariants are
on and orders go by client ids scrambled to 64 bits: nothing is easier here than
in production but that there is no log.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from api.flow import venue
from api.flow.compare import BookComparison, Check, compare_trades
from api.flow.fills import Fills, ReportHash, as_trades, checksum, fills_of, joined, report_lines
from api.flow.flow import Column, Flow
from api.flow.formats import EdgeCase, Trades, read_book_states, read_edge_cases, read_flow, read_trades
from api.flow.truth import expected_report_hash
from engine.types import LEVEL, EventType, Reason

BATCH = 65_536
_EXPECTED_REFUSALS = (Reason.NOT_LIVE,)


class Engine(Protocol):
    """What both engines offer."""

    @property
    def sequence(self) -> int: ...

    def apply(self, commands: Any) -> Any: ...

    def depth(self, market: int, levels: int) -> Any: ...

    def audit(self) -> None: ...

    def state_hash(self) -> bytes: ...


@dataclass(slots=True)
class OracleResult:
    """What came of a run.

    `checks` are the comparisons; `ok` says whether all are identical.  Trades,
    volume and checksum leave the prefill out.
    """

    name: str
    commands: int = 0
    trades: int = 0
    volume: int = 0
    checksum: int = 0
    report_sha256: str = ""
    state_hash: str = ""
    refused: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    apply_s: float = 0.0
    total_s: float = 0.0
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(check.identical for check in self.checks)

    def text(self) -> str:
        """The report, for people."""
        lines = [f"{self.name}: {self.commands:,} commands, {self.trades:,} trades, volume {self.volume:,}"]
        lines.append(f"  checksum of trades {self.checksum:016x}")
        if self.report_sha256:
            lines.append(f"  SHA-256 of report {self.report_sha256}")
        if self.state_hash:
            lines.append(f"  state hash {self.state_hash}")
        refused = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.refused.items()))
        lines.append(f"  refused: {refused or 'none'}")
        for check in self.checks:
            verdict = "identical" if check.identical else "DIFFERENT"
            lines.append(f"  {verdict}  {check.what} ({check.compared:,} compared)")
        lines.append(self.rate())
        for check in self.checks:
            if not check.identical:
                lines.append(f"first difference in {check.what}:\n{check.difference}")
                break
        return "\n".join(lines)

    def rate(self) -> str:
        """Commands a second in `apply` alone, and with reading back and comparing."""
        alone, whole = (self.commands / max(seconds, 1e-9) for seconds in (self.apply_s, self.total_s))
        return (
            f"  rate: {alone:,.0f} commands/s in apply alone ({self.batches:,} batches), "
            f"{whole:,.0f} commands/s with comparing"
        )


def run_oracle(
    source: Path | Flow,
    trades: Path | None = None,
    book: Sequence[Path] = (),
    report_hash: str | None = None,
    expected_checksum: int | None = None,
    *,
    twin: bool = False,
    rows: int | None = None,
) -> OracleResult:
    """Run one flow and compare it with all the truth that is given.

    Parameters
    ----------
    source : Path or Flow
        Any format of `api.flow.formats`, or a flow.
    trades : Path, optional
        What the exchange traded.
    book : sequence of Path
        Book states that must hold.
    report_hash : str, optional
        SHA-256 of the report text, or a file of such with names.
    expected_checksum : int, optional
        Checksum of the trades after the prefill.
    twin : bool
        Run the readable twin instead of the core.
    rows : int, optional
        Run and compare the first rows only.

    Raises
    ------
    UnusableInput
        A file cannot be used.
    """
    if isinstance(source, Path) and source.suffix == ".json":
        return run_edge_cases(source, twin=twin)
    flow = read_flow(source) if isinstance(source, Path) else source
    if rows is not None:
        flow = flow.first(rows)
    expected_trades = read_trades(trades) if trades else None
    books = [BookComparison(read_book_states(path), flow) for path in book]
    expected_report = expected_report_hash(report_hash, flow.name) if report_hash else ""
    run = _Run(flow, new_engine(twin=twin), books, with_report=bool(report_hash))
    fills = run.go()
    return _judge(run, fills, expected_trades, expected_report, expected_checksum)


def run_edge_cases(path: Path, *, twin: bool = False) -> OracleResult:
    """Run every edge case on an engine of its own and compare its report lines."""
    result = OracleResult(path.name)
    started = time.perf_counter()
    for case in read_edge_cases(path):
        run = _Run(case.flow, new_engine(twin=twin), [], with_report=True)
        fills = run.go()
        result.commands += len(case.flow)
        result.trades += len(fills)
        result.volume += int(fills.quantity.sum())
        result.refused += run.refused
        result.batches += run.batches
        result.apply_s += run.apply_s
        result.checks.append(_compare_reports(case, run.lines))
    result.total_s = time.perf_counter() - started
    return result


def new_engine(*, twin: bool) -> Engine:
    """An empty production engine, or the twin."""
    if twin:
        from engine.reference import Engine as Twin

        return Twin()
    from engine.core import Engine as Core

    return Core()


class _Run:
    """One pass of a flow through an engine, cut where a book state is due."""

    def __init__(self, flow: Flow, engine: Engine, books: list[BookComparison], with_report: bool) -> None:
        self.flow = flow
        self.engine = engine
        self.books = books
        self.report = ReportHash() if with_report else None
        self.lines: list[str] = []
        self.refused: Counter[str] = Counter()
        self.apply_s = 0.0
        self.total_s = 0.0
        self.batches = 0
        self.first_refusal = ""
        self._first_sequence = 0
        self._fills: list[Fills] = []

    def go(self) -> Fills:
        """Apply everything; the trades after the prefill."""
        self.engine.apply(venue.setup())
        self._first_sequence = self.engine.sequence + 1
        started = time.perf_counter()
        cuts = np.unique(np.concatenate([book.cuts for book in self.books] or [np.empty(0, np.int64)]))
        levels = max((book.levels for book in self.books), default=0)
        for start in range(0, max(len(self.flow), 1), BATCH):
            stop = min(start + BATCH, len(self.flow))
            commands = self.flow.commands(start, stop)
            within = cuts[(cuts > start) & (cuts <= stop)]
            collected: list[NDArray[np.void]] = []
            done = start
            for cut in [*within.tolist(), stop]:
                collected.append(self._apply(commands[done - start : cut - start]))
                done = cut
                if len(within):
                    self._meet_books(cut, levels)
            self._read_back(np.concatenate(collected))
        self.engine.audit()
        self.total_s = time.perf_counter() - started
        fills = joined(self._fills)
        counted = fills.row >= self.flow.prefill
        return Fills(*(getattr(fills, name)[counted] for name in (each.name for each in fields(Fills))))

    def _apply(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        started = time.perf_counter()
        events = self.engine.apply(commands)
        self.apply_s += time.perf_counter() - started
        self.batches += 1
        kept: NDArray[np.void] = events[events["type"] != EventType.BALANCE]
        return kept

    def _meet_books(self, rows: int, levels: int) -> None:
        bids, asks = padded_depth(self.engine, levels)
        for book in self.books:
            book.meet(rows, bids, asks)

    def _read_back(self, events: NDArray[np.void]) -> None:
        self._fills.append(fills_of(self.flow, events, self._first_sequence))
        refused = events[events["type"] == EventType.REJECTED]
        for code, count in zip(*np.unique(refused["reason"], return_counts=True), strict=True):
            self.refused[Reason(int(code)).name] += int(count)
        surprising = refused[~np.isin(refused["reason"], _EXPECTED_REFUSALS)]
        if len(surprising) and not self.first_refusal:
            row = int(surprising["sequence"][0]) - self._first_sequence
            self.first_refusal = f"{Reason(int(surprising['reason'][0])).name} for\n{self.flow.around(row)}"
        if self.report is not None:
            lines = report_lines(self.flow, events, self._first_sequence)
            self.report.feed(lines)
            if len(self.flow) <= BATCH:
                self.lines += lines


def _judge(
    run: _Run, fills: Fills, trades: Trades | None, report_hash: str, expected_checksum: int | None
) -> OracleResult:
    flow = run.flow
    result = OracleResult(
        name=flow.name,
        commands=len(flow),
        trades=len(fills),
        volume=int(fills.quantity.sum()),
        checksum=checksum(fills),
        report_sha256=run.report.hexdigest() if run.report else "",
        state_hash=run.engine.state_hash().hex(),
        refused=run.refused,
        batches=run.batches,
        apply_s=run.apply_s,
        total_s=run.total_s,
    )
    if trades is not None:
        due = trades.first(int(np.searchsorted(trades.number, flow.number[-1], side="right")))
        result.checks.append(compare_trades(flow, due, as_trades(flow, fills)))
    result.checks += [book.result() for book in run.books]
    if run.report is not None:
        lines = run.report.lines
        result.checks.append(_equal("SHA-256 of the report", lines, report_hash, result.report_sha256))
    if expected_checksum is not None:
        want, have = f"{expected_checksum:016x}", f"{result.checksum:016x}"
        result.checks.append(_equal("checksum of the trades", len(fills), want, have))
    refusals = sum(result.refused.values())
    result.checks.append(Check("no order refused but for naming what is done", refusals, run.first_refusal))
    return result


def _equal(what: str, compared: int, want: str, have: str) -> Check:
    return Check(what, compared, "" if want == have else f"  expected  {want}\n  got       {have}")


def _compare_reports(case: EdgeCase, lines: Sequence[str]) -> Check:
    """Line by line; all lines of a case fit one batch."""
    what = f"edge case {case.flow.name}"
    both = min(len(case.reports), len(lines))
    if list(case.reports) == list(lines):
        return Check(what, both)
    at = next((i for i in range(both) if case.reports[i] != lines[i]), both)
    want, have = (
        reports[at] if at < len(reports) else "no line" for reports in (list(case.reports), list(lines))
    )
    row = min(int(have.split(",")[1]) if "," in have else len(case.flow) - 1, len(case.flow) - 1)
    around = case.flow.around(row)
    return Check(
        what, both, f"  line {at + 1}\n  expected  {want}\n  got       {have}\ninput around it:\n{around}"
    )


def padded_depth(engine: Engine, levels: int) -> tuple[Column, Column]:
    """Bids and asks as int64[levels, 3] (price, quantity, orders); what is not there is zero."""
    sides: Iterable[Any] = engine.depth(venue.MARKET, levels)
    bids, asks = (_padded(side, levels) for side in sides)
    return bids, asks


def _padded(side: Any, levels: int) -> Column:
    book = np.zeros((levels, 3), np.int64)
    for part, name in enumerate(LEVEL.names or ()):
        book[: len(side), part] = side[name]
    return book
