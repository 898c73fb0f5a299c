"""Balances of the accounts that asked lately, kept current by BALANCE events.

The engine answers a question about balances from its whole state, so it is
asked once an account.  The order of things makes that exact: the account is
watched before the engine is asked, and what an event said later than the
answer's sequence wins over the answer.
"""

from collections import OrderedDict

from api.gateway.orders import Row

ACCOUNTS_KEPT = 10_000


class BalanceCache:
    """account → asset → (available, held, sequence)."""

    def __init__(self, accounts_max: int = ACCOUNTS_KEPT) -> None:
        self._accounts: OrderedDict[int, dict[int, tuple[int, int, int]]] = OrderedDict()
        self._complete: set[int] = set()
        self._accounts_max = accounts_max

    def watch(self, account: int) -> None:
        """Begin to keep what events say of an account."""
        if account not in self._accounts:
            self._accounts[account] = {}
            if len(self._accounts) > self._accounts_max:
                dropped, _ = self._accounts.popitem(last=False)
                self._complete.discard(dropped)

    def fold(self, row: Row) -> None:
        """A BALANCE event."""
        balances = self._accounts.get(row[7])
        if balances is not None:
            balances[row[8]] = (row[9], row[10], row[5])

    def complete(self, account: int, sequence: int, rows: list[tuple[int, int, int]]) -> None:
        """The engine's answer as of `sequence`: (asset, available, held)."""
        balances = self._accounts.get(account)
        if balances is None:
            return
        for asset, available, held in rows:
            known = balances.get(asset)
            if known is None or known[2] <= sequence:
                balances[asset] = (available, held, sequence)
        self._complete.add(account)

    def get(self, account: int) -> dict[int, tuple[int, int, int]] | None:
        """Everything of an account, when that is known."""
        if account not in self._complete:
            return None
        self._accounts.move_to_end(account)
        return self._accounts[account]

    def clear(self) -> None:
        """Forget all: events were missed."""
        self._accounts.clear()
        self._complete.clear()
