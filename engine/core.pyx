"""`Engine`: the one way in (`apply`), the state out and back (`dump`, `load`), and questions.

The way of a command, in the files that take it::

    dispatch  sequence and time, keys that are due, prelude
       trading / admin  the rules, then the deed
          matcher  crossing: quantities, money (ledger), fills
       key kept
    invariants  BALANCE events, what must hold
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

cimport numpy as cnp

import numpy as np

from engine import state as canonical
from engine import types

from engine.admin cimport key_add, transaction_add
from engine.books cimport Order, book_find_id
from engine.dispatch cimport execute
from engine.idempotency cimport SeenKey, idempotency_find, seen_at
from engine.index cimport ABSENT
from engine.ledger cimport Balance, balance_find
from engine.sections cimport (
    read_accounts, read_assets, read_balance, read_market, read_orders, read_seen, read_venue,
    write_balance, write_market, write_order, write_orders, write_seen, write_venue,
)
from engine.sweep cimport sweep
from engine.lookahead cimport FAR, NEAR, fetch_far, fetch_near
from engine.types cimport *
from engine.writer cimport Writer

cnp.import_array()

cdef class Engine(Writer):
    """An empty venue; commands fill it.

    Not for two threads at a time: a call during a call raises RuntimeError.

    Examples
    --------
    >>> from engine import Engine, commands as make
    >>> venue = Engine()
    >>> len(venue.apply(make.open_asset()))
    1
    """

    def apply(self, commands):
        """Apply commands in order.

        Parameters
        ----------
        commands : COMMAND[n], contiguous

        Returns
        -------
        EVENT[m]
            In order, read-only; a view that is good until the next call.

        Raises
        ------
        TypeError, ValueError
            Not such an array; nothing was touched.
        InvariantViolation
            The commands before it were applied, no events come out, the engine is tainted.
        MemoryError
            Likewise.
        Tainted
            It was before.
        """
        cdef uint64_t count, at
        cdef const Command* command = self._begin(commands, &count)
        cdef bint goes_on = True
        with nogil:
            for at in range(count):
                if at + FAR < count:
                    fetch_far(&self.venue, &command[at + FAR], True)
                    fetch_near(&self.venue, &command[at + NEAR], True)
                if not execute(&self.venue, &command[at]):
                    goes_on = False
                    break
        return self._end(goes_on)

    @property
    def time_ns(self):
        """Logged time of the last command applied."""
        return self.venue.time_ns

    @property
    def epoch(self):
        """Epoch of the process that writes."""
        return self.venue.epoch

    @property
    def accepted_no(self):
        """Highest number of the submissions queue that was applied."""
        return self.venue.accepted_no

    @property
    def venue_state(self):
        """A VenueState."""
        return types.VenueState(self.venue.state)

    def audit(self):
        """The full sweep; O(state).

        Raises
        ------
        InvariantViolation
            The first one seen; the engine is tainted from then on.
        """
        self._enter()
        cdef int status
        with nogil:
            status = sweep(&self.venue)
        if status < 0:
            raise MemoryError()
        if self.venue.violation.invariant:
            self._fail()

    def state_hash(self):
        """Hash of the state: 32 bytes, independent of memory layout; O(state)."""
        self._enter()
        return canonical.state_hash(self.dump())

    def balances(self, uint32_t account):
        """The balances of an account that are not zero, by asset: BALANCE[n]; O(assets)."""
        self._enter()
        cdef uint32_t asset, number
        cdef list rows = []
        cdef const Balance* balance
        for asset in range(1, self.venue.assets_count + 1):
            number = balance_find(&self.venue.ledger, account, asset)
            if number == ABSENT:
                continue
            balance = &self.venue.ledger.balances[number]
            if balance.available or balance.held:
                rows.append((account, asset, balance.available, balance.held, 0))
        return np.array(rows, dtype=types.BALANCE)

    def orders(self, uint32_t account):
        """The live orders of an account in canonical order: ORDER[n]; O(slots + n log n).

        The pool is walked in memory order and only what is found is copied and sorted.
        """
        self._enter()
        cdef uint64_t capacity = self.venue.book.slots.capacity
        cdef uint64_t count = 0
        cdef uint64_t slot
        with nogil:
            for slot in range(capacity):
                count += is_live_of(&self.venue.book.orders[slot], account)
        cdef cnp.ndarray records = np.zeros(count, dtype=types.ORDER)
        cdef OrderRecord* record = <OrderRecord*>cnp.PyArray_DATA(records)
        with nogil:
            for slot in range(capacity):
                if count == 0:
                    break
                if is_live_of(&self.venue.book.orders[slot], account):
                    write_order(&self.venue.book.orders[slot], record)
                    record += 1
                    count -= 1
        return canonical.sort("orders", records)

    def order(self, uint64_t order_id, uint32_t slot=NO_SLOT):
        """The live order of that name, an ORDER record, or None; without a slot only QUEUED ids are found."""
        self._enter()
        cdef uint32_t found = ABSENT
        if order_id:
            found = book_find_id(&self.venue.book, order_id, slot)
        if found == ABSENT:
            return None
        cdef cnp.ndarray record = np.zeros(1, dtype=types.ORDER)
        write_order(&self.venue.book.orders[found], <OrderRecord*>cnp.PyArray_DATA(record))
        return record[0]

    def find_key(self, uint32_t account, key):
        """Sequence of the command that an account sent under an idempotency key, or 0."""
        record = self.find_seen(account, key)
        return 0 if record is None else int(record["sequence"])

    def find_seen(self, uint32_t account, key):
        """What is kept of an account's idempotency key, an IDEMPOTENCY record, or None; O(1)."""
        self._enter()
        cdef const SeenKey* seen = idempotency_find(
            &self.venue.idempotency, account, <uint64_t>(key & 0xFFFFFFFFFFFFFFFF), <uint64_t>(key >> 64)
        )
        if seen == NULL:
            return None
        cdef cnp.ndarray record = np.zeros(1, dtype=types.IDEMPOTENCY)
        write_seen(seen, <IdempotencyRecord*>cnp.PyArray_DATA(record))
        return record[0]

    def assets(self):
        """All assets by number: ASSET[n]; O(n)."""
        self._enter()
        return self._dump_assets()

    def markets(self):
        """All markets by number: MARKET[n]; O(n)."""
        self._enter()
        return self._dump_markets()

    def accounts(self):
        """All accounts by number, that of the fees first: ACCOUNT[n]; O(n)."""
        self._enter()
        return self._dump_accounts()

    def keys(self):
        """All API keys by hash: KEY[n]; O(n log n)."""
        self._enter()
        return self._dump_keys()

    cdef object _dump_assets(self):
        cdef cnp.ndarray records = np.zeros(self.venue.assets_count, dtype=types.ASSET)
        cdef AssetRecord* data = <AssetRecord*>cnp.PyArray_DATA(records)
        cdef uint32_t at
        for at in range(self.venue.assets_count):
            data[at].asset = at + 1
            data[at].net_deposits = self.venue.assets[at + 1].net_deposits
        return records

    cdef object _dump_markets(self):
        cdef cnp.ndarray records = np.zeros(self.venue.markets_count, dtype=types.MARKET)
        cdef MarketRecord* data = <MarketRecord*>cnp.PyArray_DATA(records)
        cdef uint32_t at
        for at in range(self.venue.markets_count):
            write_market(&self.venue.markets[at + 1], at + 1, &data[at])
        return records

    cdef object _dump_accounts(self):
        cdef cnp.ndarray records = np.zeros(self.venue.accounts_count, dtype=types.ACCOUNT)
        cdef AccountRecord* data = <AccountRecord*>cnp.PyArray_DATA(records)
        cdef uint32_t at
        for at in range(self.venue.accounts_count):
            data[at].account = at
            data[at].state = self.venue.accounts[at].state
        return records

    cdef object _dump_keys(self):
        cdef cnp.ndarray records = np.zeros(self.venue.keys_count, dtype=types.KEY)
        if self.venue.keys_count:
            memcpy(cnp.PyArray_DATA(records), self.venue.keys, self.venue.keys_count * sizeof(KeyRecord))
        return canonical.sort("keys", records)

    cdef object _dump_orders(self):
        cdef cnp.ndarray records = np.zeros(self.venue.book.live, dtype=types.ORDER)
        cdef OrderRecord* data = <OrderRecord*>cnp.PyArray_DATA(records)
        with nogil:
            write_orders(&self.venue, data)
        return records

    def dump(self):
        """Everything that `apply` can see: one array a section, in canonical order; O(n log n).

        A tainted engine dumps too, for the post-mortem.
        """
        if self.is_busy:
            raise RuntimeError("another thread is in this engine; it has a single writer")
        arrays = {
            "venue": np.zeros(1, types.VENUE),
            "assets": self._dump_assets(),
            "markets": self._dump_markets(),
            "accounts": self._dump_accounts(),
            "balances": np.zeros(self.venue.ledger.balances_used, types.BALANCE),
            "orders": self._dump_orders(),
            "transactions": np.zeros(self.venue.transactions_count, types.TRANSACTION),
            "keys": self._dump_keys(),
            "idempotency": np.zeros(self.venue.idempotency.count, types.IDEMPOTENCY),
        }
        write_venue(&self.venue, <VenueRecord*>address(arrays, "venue"))
        self._dump_many(
            <BalanceRecord*>address(arrays, "balances"), <IdempotencyRecord*>address(arrays, "idempotency")
        )
        if self.venue.transactions_count:
            memcpy(
                address(arrays, "transactions"), self.venue.transactions,
                self.venue.transactions_count * sizeof(TransactionRecord),
            )
        balances = arrays["balances"]
        arrays["balances"] = balances[(balances["available"] != 0) | (balances["held"] != 0)]
        for section in ("balances", "transactions"):
            arrays[section] = canonical.sort(section, arrays[section])
        return arrays

    cdef void _dump_many(self, BalanceRecord* balances, IdempotencyRecord* seen) noexcept nogil:
        cdef uint64_t at
        for at in range(self.venue.ledger.balances_used):
            write_balance(&self.venue.ledger.balances[at], &balances[at])
        for at in range(self.venue.idempotency.count):
            write_seen(seen_at(&self.venue.idempotency, at), &seen[at])

    @classmethod
    def load(cls, arrays):
        """An engine with the dumped state; O(n log n).

        Raises
        ------
        StateError
            The arrays do not have the form of a state.
        InvariantViolation
            They have it and contradict themselves.
        """
        canonical.check(arrays)
        cdef Engine engine = cls()
        whole = {name: np.ascontiguousarray(arrays[name]) for name in types.SECTIONS}
        if engine._load(whole) < 0:
            raise MemoryError()
        engine.audit()
        return engine

    cdef int _load(self, dict arrays) except -2:
        cdef uint64_t at
        cdef const MarketRecord* markets = <const MarketRecord*>address(arrays, "markets")
        cdef const BalanceRecord* balances = <const BalanceRecord*>address(arrays, "balances")
        cdef const TransactionRecord* transactions = <const TransactionRecord*>address(arrays, "transactions")
        cdef const KeyRecord* keys = <const KeyRecord*>address(arrays, "keys")
        cdef const IdempotencyRecord* seen = <const IdempotencyRecord*>address(arrays, "idempotency")
        read_venue(&self.venue, <const VenueRecord*>address(arrays, "venue"))
        if read_assets(&self.venue, <const AssetRecord*>address(arrays, "assets"), len(arrays["assets"])) < 0:
            return -1
        if read_accounts(
            &self.venue, <const AccountRecord*>address(arrays, "accounts"), len(arrays["accounts"])
        ) < 0:
            return -1
        for at in range(len(arrays["markets"])):
            if read_market(&self.venue, &markets[at]) < 0:
                return -1
        for at in range(len(arrays["balances"])):
            if read_balance(&self.venue, &balances[at]) < 0:
                return -1
        if read_orders(
            &self.venue, <const OrderRecord*>address(arrays, "orders"), len(arrays["orders"])
        ) < 0:
            return -1
        for at in range(len(arrays["transactions"])):
            if transaction_add(&self.venue, transactions[at]) < 0:
                return -1
        for at in range(len(arrays["keys"])):
            if key_add(&self.venue, keys[at]) < 0:
                return -1
        for at in range(len(arrays["idempotency"])):
            if read_seen(&self.venue, &seen[at]) < 0:
                return -1
        return 0


cdef inline bint is_live_of(const Order* order, uint32_t account) noexcept nogil:
    return order.account == account and order.order_id != 0


cdef void* address(dict arrays, str section):
    """Where the records of a section lie."""
    return cnp.PyArray_DATA(arrays[section])
