"""The twin of `engine.Engine`: the executable specification, the same events byte for byte.

The way of a command::

    sequence, time → expired keys → prelude → handler → key kept → BALANCE → invariants
"""

from collections.abc import Callable, Mapping
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from engine import state
from engine.errors import InvariantViolation, Tainted
from engine.reference import admin, invariants, money, sections, trading
from engine.reference.events import Events
from engine.reference.records import Command, IdempotencyEntry
from engine.reference.venue import Venue
from engine.types import (
    COMMAND,
    EVENT,
    LEVEL,
    NO_SLOT,
    QUEUED,
    VERSION,
    CommandType,
    Reason,
    Side,
    VenueState,
)

Handler = Callable[[Venue, Command, Events], Reason]

_HANDLERS: dict[int, Handler] = {
    CommandType.NEW: trading.new,
    CommandType.CANCEL: trading.cancel,
    CommandType.AMEND: trading.amend,
    CommandType.OPEN_ASSET: admin.open_asset,
    CommandType.OPEN_MARKET: admin.open_market,
    CommandType.OPEN_ACCOUNT: admin.open_account,
    CommandType.DEPOSIT: money.deposit,
    CommandType.WITHDRAW: money.withdraw,
    CommandType.ADD_KEY: admin.add_key,
    CommandType.REVOKE_KEY: admin.revoke_key,
    CommandType.SET_MARKET_STATE: admin.set_market_state,
    CommandType.SET_VENUE_STATE: admin.set_venue_state,
    CommandType.SET_ACCOUNT_STATE: admin.set_account_state,
    CommandType.START: admin.start,
    CommandType.DRAINED: admin.drained,
    CommandType.TICK: admin.tick,
}

_HAS_PRELUDE = (
    CommandType.NEW,
    CommandType.CANCEL,
    CommandType.AMEND,
    CommandType.DEPOSIT,
    CommandType.WITHDRAW,
)
_MAY_BE_QUEUED = (CommandType.NEW, CommandType.CANCEL)


class Engine:
    """An empty venue; commands fill it."""

    def __init__(self) -> None:
        self._venue = Venue()
        self._cause: str | None = None

    @property
    def sequence(self) -> int:
        """Sequence of the last command applied."""
        return self._venue.sequence

    @property
    def time_ns(self) -> int:
        """Logged time of the last command applied."""
        return self._venue.time_ns

    @property
    def epoch(self) -> int:
        """Epoch of the process that writes."""
        return self._venue.epoch

    @property
    def accepted_no(self) -> int:
        """Highest number of the submissions queue that was applied."""
        return self._venue.accepted_no

    @property
    def venue_state(self) -> VenueState:
        return VenueState(self._venue.state)

    def apply(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        """Apply commands in order.

        Parameters
        ----------
        commands : COMMAND[n]

        Returns
        -------
        EVENT[m]
            In order; valid until the next call.

        Raises
        ------
        TypeError, ValueError
            Not such an array; nothing was touched.
        InvariantViolation
            The commands before it were applied, no events come out, the engine is tainted.
        Tainted
            It was before.
        """
        if not isinstance(commands, np.ndarray) or commands.dtype != COMMAND:
            raise TypeError(f"COMMAND[n] expected, got {getattr(commands, 'dtype', type(commands).__name__)}")
        if commands.ndim != 1:
            raise ValueError("COMMAND[n] in one dimension expected")
        self._refuse_tainted()
        events = Events()
        try:
            for row in commands.tolist():
                self._step(Command._make(row), events)
        except InvariantViolation as violation:
            self._cause = str(violation)
            raise
        return np.array(events.rows, dtype=EVENT)

    def _step(self, command: Command, events: Events) -> None:
        venue = self._venue
        expected = venue.sequence + 1
        if command.sequence not in (0, expected):
            raise InvariantViolation("I9", expected, 0, 0, command.sequence - expected)
        epoch = venue.epoch
        rows_before = len(events.rows)
        venue.start_journal()
        venue.sequence = events.sequence = expected
        venue.time_ns = max(venue.time_ns, command.time_ns)
        venue.idempotency.drop_old(venue.time_ns)

        handler = _HANDLERS.get(command.type)
        if command.version != VERSION or handler is None:
            events.rejected(command, Reason.UNKNOWN_COMMAND)
        elif command.type not in _HAS_PRELUDE:
            _run(venue, handler, command, events)
        elif _passes_prelude(venue, command, events):
            _keep_key(venue, command, _run(venue, handler, command, events))

        _emit_balances(venue, events)
        venue.events += len(events.rows) - rows_before
        invariants.check_touched(venue)
        if venue.epoch < epoch:
            raise InvariantViolation("I9", venue.sequence, 0, 0, venue.epoch - epoch)

    def dump(self) -> dict[str, NDArray[np.void]]:
        """Everything that `apply` can see: one array a section, canonically sorted; O(n log n)."""
        return sections.dump(self._venue)

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[np.void]]) -> "Engine":
        """An engine with the dumped state.

        Raises
        ------
        StateError
            The arrays do not have the form of a state.
        InvariantViolation
            They have it and contradict themselves.
        """
        state.check(arrays)
        engine = cls()
        engine._venue = sections.load(arrays)
        engine.audit()
        return engine

    def state_hash(self) -> bytes:
        """32 bytes, independent of memory layout; O(n log n)."""
        self._refuse_tainted()
        return state.state_hash(self.dump())

    def balances(self, account: int) -> NDArray[np.void]:
        """The balances of an account that are not zero, by asset: BALANCE[n]."""
        return _of_account(self._section("balances"), account)

    def orders(self, account: int) -> NDArray[np.void]:
        """The live orders of an account in canonical order: ORDER[n]."""
        return _of_account(self._section("orders"), account)

    def order(self, order_id: int, slot: int = NO_SLOT) -> np.void | None:
        """The live order of that name, an ORDER record, or None; without a slot only QUEUED ids are found."""
        self._refuse_tainted()
        found = self._venue.orders.find_id(order_id, slot)
        return None if found is None else sections.order_record(found)

    def find_key(self, account: int, key: int) -> int:
        """Sequence of the command that an account sent under an idempotency key, or 0."""
        record = self.find_seen(account, key)
        return 0 if record is None else int(record["sequence"])

    def find_seen(self, account: int, key: int) -> np.void | None:
        """What is kept of an account's idempotency key, an IDEMPOTENCY record, or None."""
        self._refuse_tainted()
        entry = self._venue.idempotency.find(account, key)
        return None if entry is None else sections.seen_record(entry)

    def assets(self) -> NDArray[np.void]:
        """All assets by number: ASSET[n]."""
        return self._section("assets")

    def markets(self) -> NDArray[np.void]:
        """All markets by number: MARKET[n]."""
        return self._section("markets")

    def accounts(self) -> NDArray[np.void]:
        """All accounts by number, that of the fees first: ACCOUNT[n]."""
        return self._section("accounts")

    def keys(self) -> NDArray[np.void]:
        """All API keys by hash: KEY[n]."""
        return self._section("keys")

    def depth(self, market: int, levels: int = 0) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Best levels of the bids and of the asks, the best first, 0 for all: LEVEL[n] each; O(levels).

        Raises
        ------
        KeyError
            The market is unknown.
        """
        self._refuse_tainted()
        book = self._venue.books[market]
        bids, asks = (
            [
                (level.price, level.total, len(level.orders))
                for level in islice(book.levels(side), levels or None)
            ]
            for side in Side
        )
        return np.array(bids, LEVEL), np.array(asks, LEVEL)

    def audit(self) -> None:
        """The full sweep.

        Raises
        ------
        InvariantViolation
            The first one seen.
        """
        self._refuse_tainted()
        invariants.sweep(self._venue)

    def _section(self, name: str) -> NDArray[np.void]:
        self._refuse_tainted()
        return self.dump()[name]

    def _refuse_tainted(self) -> None:
        if self._cause is not None:
            raise Tainted(self._cause)


def _passes_prelude(venue: Venue, command: Command, events: Events) -> bool:
    """Queue number, account, idempotency key: whether the command is to run."""
    if command.type in _MAY_BE_QUEUED and command.accepted_no:
        if command.accepted_no >= QUEUED:
            events.rejected(command, Reason.INVALID_IDENTIFIER)
            return False
        if command.accepted_no <= venue.accepted_no:
            events.duplicate(command, 0)
            return False
        venue.accepted_no = command.accepted_no
    if not venue.is_customer(command.account):
        events.rejected(command, Reason.UNKNOWN_ACCOUNT)
        return False
    if command.key:
        first = venue.idempotency.find(command.account, command.key)
        if first is not None and first.body == command.body:
            events.duplicate(command, first.sequence)
            return False
        if first is not None:
            events.rejected(command, Reason.IDEMPOTENCY_CONFLICT)
            return False
        if venue.idempotency.is_full(command.account):
            events.rejected(command, Reason.IDEMPOTENCY_QUOTA)
            return False
    return True


def _of_account(records: NDArray[np.void], account: int) -> NDArray[np.void]:
    mine: NDArray[np.void] = records[records["account"] == account]
    return mine


def _run(venue: Venue, handler: Handler, command: Command, events: Events) -> Reason:
    reason = handler(venue, command, events)
    if reason:
        events.rejected(command, reason)
    return reason


def _keep_key(venue: Venue, command: Command, reason: Reason) -> None:
    """Kept, rejected or not; but a draining venue wants the command again later."""
    if command.key and reason != Reason.VENUE_DRAINING:
        venue.idempotency.keep(
            IdempotencyEntry(command.account, command.key, command.body, venue.sequence, venue.time_ns)
        )


def _emit_balances(venue: Venue, events: Events) -> None:
    """The touched balances that differ from before the command, in order of first touch."""
    for (account, asset), before in venue.journal.balances.items():
        balance = venue.ledger.balances[account, asset]
        if (balance.available, balance.held) != before:
            events.balance(account, asset, balance.available, balance.held)
