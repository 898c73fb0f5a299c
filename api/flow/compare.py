"""Holds what the engine did against what the exchange did, and shows the first difference."""

from dataclasses import dataclass

import numpy as np

from api.flow.flow import Column, Flow
from api.flow.formats import BookStates, Trades


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: what was compared, how much of it, and the first difference if any."""

    what: str
    compared: int
    difference: str = ""

    @property
    def identical(self) -> bool:
        return not self.difference


def compare_trades(flow: Flow, expected: Trades, got: Trades) -> Check:
    """Row by row, every column; a missing or surplus trade is a difference too."""
    both = min(len(expected), len(got))
    differs = np.zeros(both, bool)
    for want, have in zip(expected.columns(), got.columns(), strict=True):
        differs |= want[:both] != have[:both]
    if not differs.any() and len(expected) == len(got):
        return Check("trades", both)
    row = int(np.argmax(differs)) if differs.any() else both
    lines = [f"trade {row + 1} of {len(expected)} expected and {len(got)} made"]
    numbers = []
    for title, trades in (("expected", expected), ("got     ", got)):
        there = row < len(trades)
        lines.append(f"  {title}  {trades.describe(row) if there else 'no trade'}")
        if there:
            numbers.append(int(trades.number[row]))
    for number in sorted(set(numbers)):
        lines.append(f"input around n {number}:")
        lines.append(flow.around(int(np.searchsorted(flow.number, number))))
    return Check("trades", both, "\n".join(lines))


class BookComparison:
    """One file of book states, met in order as the flow runs."""

    def __init__(self, states: BookStates, flow: Flow) -> None:
        within = states.number <= (flow.number[-1] if len(flow) else -1)
        self.states = states
        self.cuts = np.searchsorted(flow.number, states.number[within], side="right")
        """Rows after which a state is due, not falling."""
        self._flow = flow
        self._next = 0
        self._difference = ""

    @property
    def levels(self) -> int:
        return int(self.states.bids.shape[1])

    def meet(self, rows: int, bids: Column, asks: Column) -> None:
        """Compare the states due after the first `rows` rows with the book there is."""
        while self._next < len(self.cuts) and self.cuts[self._next] == rows:
            if not self._difference:
                self._difference = self._compare(self._next, rows, bids, asks)
            self._next += 1

    def result(self) -> Check:
        return Check(f"book states of {self.states.name}", self._next, self._difference)

    def _compare(self, state: int, rows: int, bids: Column, asks: Column) -> str:
        parts = 3 if self.states.counts else 2
        expected = {"bid": self.states.bids[state], "ask": self.states.asks[state]}
        got = {"bid": bids[: self.levels], "ask": asks[: self.levels]}
        for side in ("bid", "ask"):
            differs = (expected[side][:, :parts] != got[side][:, :parts]).any(axis=1)
            if differs.any():
                level = int(np.argmax(differs))
                fields = ("price", "quantity", "orders")[:parts]
                want, have = (
                    "  ".join(f"{field} {value}" for field, value in zip(fields, book[level], strict=False))
                    for book in (expected[side], got[side])
                )
                return (
                    f"{side} level {level + 1} after n {self.states.number[state]}\n"
                    f"  expected  {want}\n  got       {have}\n"
                    f"input around it:\n{self._flow.around(rows - 1)}"
                )
        return ""
