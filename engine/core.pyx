"""`Engine`: the one way in (`apply`), the state out and back (`dump`, `load`), and questions.

The way of a command, in the files that take it::

    dispatch  sequence and time, keys that are due, prelude
       trading / admin  the rules, then the deed
          matcher  crossing: quantities, money (ledger), fills
       key kept
    invariants  BALANCE events, what must hold
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cimport numpy as cnp

import numpy as np

from engine import state as canonical
from engine import types
from engine.errors import InvariantViolation, Tainted

from engine.book cimport Ladder, Level, NO_LINK, book_find_id
from engine.dispatch cimport execute
from engine.idempotency cimport SeenKey, idempotency_find, seen_at
from engine.index cimport ABSENT
from engine.ledger cimport Balance, balance_find
from engine.sections cimport (
    read_accounts, read_assets, read_balance, read_market, read_order, read_orders, read_seen, read_venue,
    write_balance, write_market, write_order, write_orders, write_seen, write_venue,
)
from engine.admin cimport key_add, transaction_add
from engine.sweep cimport sweep
from engine.types cimport *
from engine.venue cimport Market, Venue, venue_free, venue_init

cnp.import_array()

cdef object COMMAND_DTYPE = types.COMMAND
cdef object EVENT_DTYPE = types.EVENT
cdef enum:
    EVENTS_MINIMUM = 1024


cdef int grow_events(void* owner) noexcept with gil:
    """Called by `emit` when the buffer is full."""
    try:
        (<Engine>owner)._grow_events()
    except MemoryError:
        return -1
    return 0


cdef class Engine:
    """An empty venue; commands fill it.

    Not for two threads at a time: a call during a call raises RuntimeError.

    Examples
    --------
    >>> from engine import Engine, commands as make
    >>> venue = Engine()
    >>> len(venue.apply(make.open_asset()))
    1
    """

    cdef Venue venue
    cdef object events          # the buffer of EVENT; views of older, smaller ones stay good
    cdef str cause
    cdef bint is_busy

    def __cinit__(self):
        memset(&self.venue, 0, sizeof(Venue))
        if venue_init(&self.venue) < 0:
            raise MemoryError()
        self.venue.owner = <void*>self
        self.venue.grow_events = grow_events
        self._grow_events()

    def __dealloc__(self):
        venue_free(&self.venue)

    cdef int _grow_events(self) except -1:
        """Double the buffer; what was written moves along."""
        cdef uint64_t capacity = max(2 * self.venue.events_capacity, <uint64_t>EVENTS_MINIMUM)
        cdef cnp.ndarray grown = np.empty(capacity, dtype=EVENT_DTYPE)
        if self.venue.events_count:
            memcpy(cnp.PyArray_DATA(grown), self.venue.events, self.venue.events_count * sizeof(Event))
        self.venue.events = <Event*>cnp.PyArray_DATA(grown)
        self.venue.events_capacity = capacity
        grown.setflags(write=False)
        self.events = grown
        return 0

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
        cdef cnp.ndarray batch
        cdef const Command* command
        cdef uint64_t count, at
        cdef bint goes_on = True
        if not isinstance(commands, np.ndarray):
            raise TypeError(f"COMMAND[n] expected, got {type(commands).__name__}")
        batch = commands
        if batch.dtype is not COMMAND_DTYPE and batch.dtype != COMMAND_DTYPE:
            raise TypeError(f"COMMAND[n] expected, got dtype {batch.dtype}")
        if cnp.PyArray_NDIM(batch) != 1 or not cnp.PyArray_IS_C_CONTIGUOUS(batch):
            raise ValueError("COMMAND[n] in one contiguous dimension expected; use numpy.ascontiguousarray")
        if <size_t>cnp.PyArray_DATA(batch) & 7:
            raise ValueError("COMMAND[n] aligned to 8 bytes expected; copy the array")
        self._enter()
        command = <const Command*>cnp.PyArray_DATA(batch)
        count = cnp.PyArray_DIM(batch, 0)
        self.venue.events_count = 0
        self.is_busy = True
        with nogil:
            for at in range(count):
                if not execute(&self.venue, &command[at]):
                    goes_on = False
                    break
        self.is_busy = False
        if not goes_on:
            self._fail()
        return self.events[:self.venue.events_count]

    cdef int _enter(self) except -1:
        """Refuse what a tainted or busy engine must not do."""
        if self.is_busy:
            raise RuntimeError("another thread is in this engine; it has a single writer")
        if self.cause is not None:
            raise Tainted(self.cause)
        return 0

    cdef int _fail(self) except -1:
        """Taint the engine and raise what was found."""
        if self.venue.is_out_of_memory:
            self.cause = f"out of memory at sequence {self.venue.sequence}"
            raise MemoryError(self.cause)
        violation = InvariantViolation(
            f"I{self.venue.violation.invariant}",
            self.venue.violation.sequence,
            self.venue.violation.account,
            self.venue.violation.asset,
            self.venue.violation.delta,
        )
        self.cause = str(violation)
        raise violation

    @property
    def sequence(self):
        """Sequence of the last command applied, 0 at first."""
        return self.venue.sequence

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

    def depth(self, uint32_t market, uint32_t levels=0):
        """Best levels of a market, the best first.

        Parameters
        ----------
        market : int
        levels : int
            How many at most on each side; 0 for all.

        Returns
        -------
        (bids, asks) : LEVEL[n] each

        Raises
        ------
        KeyError
            No such market.
        """
        self._enter()
        if market == 0 or market > self.venue.markets_count:
            raise KeyError(market)
        return (
            side_depth(&self.venue, market * 2, levels),
            side_depth(&self.venue, market * 2 + 1, levels),
        )

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
        """The live orders of an account in canonical order: ORDER[n]; O(all live orders)."""
        self._enter()
        records = self._dump_orders()
        return records[records["account"] == account]

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
        self._enter()
        cdef const SeenKey* seen = idempotency_find(
            &self.venue.idempotency, account, <uint64_t>(key & 0xFFFFFFFFFFFFFFFF), <uint64_t>(key >> 64)
        )
        return seen.sequence if seen != NULL else 0

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
            "assets": np.zeros(self.venue.assets_count, types.ASSET),
            "markets": np.zeros(self.venue.markets_count, types.MARKET),
            "accounts": np.zeros(self.venue.accounts_count, types.ACCOUNT),
            "balances": np.zeros(self.venue.ledger.balances_used, types.BALANCE),
            "orders": self._dump_orders(),
            "transactions": np.zeros(self.venue.transactions_count, types.TRANSACTION),
            "keys": np.zeros(self.venue.keys_count, types.KEY),
            "idempotency": np.zeros(self.venue.idempotency.count, types.IDEMPOTENCY),
        }
        write_venue(&self.venue, <VenueRecord*>address(arrays, "venue"))
        self._dump_named(
            <AssetRecord*>address(arrays, "assets"),
            <MarketRecord*>address(arrays, "markets"),
            <AccountRecord*>address(arrays, "accounts"),
            <BalanceRecord*>address(arrays, "balances"),
            <IdempotencyRecord*>address(arrays, "idempotency"),
        )
        if self.venue.transactions_count:
            memcpy(
                address(arrays, "transactions"), self.venue.transactions,
                self.venue.transactions_count * sizeof(TransactionRecord),
            )
        if self.venue.keys_count:
            memcpy(address(arrays, "keys"), self.venue.keys, self.venue.keys_count * sizeof(KeyRecord))
        balances = arrays["balances"]
        arrays["balances"] = balances[(balances["available"] != 0) | (balances["held"] != 0)]
        for section in ("balances", "transactions", "keys"):
            arrays[section] = canonical.sort(section, arrays[section])
        return arrays

    cdef void _dump_named(
        self,
        AssetRecord* assets,
        MarketRecord* markets,
        AccountRecord* accounts,
        BalanceRecord* balances,
        IdempotencyRecord* seen,
    ) noexcept nogil:
        cdef uint64_t at
        for at in range(self.venue.assets_count):
            assets[at].asset = at + 1
            assets[at].net_deposits = self.venue.assets[at + 1].net_deposits
        for at in range(self.venue.markets_count):
            write_market(&self.venue.markets[at + 1], at + 1, &markets[at])
        for at in range(self.venue.accounts_count):
            accounts[at].account = at
            accounts[at].state = self.venue.accounts[at].state
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


cdef void* address(dict arrays, str section):
    """Where the records of a section lie."""
    return cnp.PyArray_DATA(arrays[section])


cdef object side_depth(const Venue* venue, uint32_t ladder, uint32_t levels):
    """One side of `depth`."""
    cdef const Ladder* side = &venue.book.ladders[ladder]
    cdef uint32_t count = side.count if levels == 0 or side.count < levels else levels
    cdef cnp.ndarray records = np.empty(count, dtype=types.LEVEL)
    cdef LevelRecord* out = <LevelRecord*>cnp.PyArray_DATA(records)
    cdef const Level* level
    cdef uint32_t at
    for at in range(count):
        level = &venue.book.levels[side.rungs[side.count - 1 - at].level]
        out[at].price = level.price
        out[at].quantity = level.total
        out[at].orders = level.count
    return records
