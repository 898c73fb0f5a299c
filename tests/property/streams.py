"""Arbitrary command streams: valid, nearly valid and garbage, dense enough to trade a lot.

A stream is drawn from a `Random`, either a seeded one (long streams) or
Hypothesis's own (short streams that shrink).  It hears the events of what it sent,
so that it can name live orders, resume halted things and repeat identifiers.
"""

from collections import deque
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import commands as make
from engine.types import (
    COMMAND,
    FEE_ACCOUNT,
    IDEMPOTENCY_WINDOW_NS,
    INT64_MAX,
    NO_SLOT,
    QUEUED,
    VERSION,
    AccountState,
    CommandFlag,
    CommandType,
    EventType,
    MarketState,
    VenueState,
)

ASSETS = 4
ACCOUNTS = 5
PAIRS = ((1, 2), (3, 2), (1, 3), (2, 1), (4, 2))
ATOMS = ((1, 1), (1, 1), (7, 13), (10**6, 10**3), (1, 10**9), (10**12, 1))
FEES = (
    (1_000, 2_500),
    (-200, 300),
    (0, 0),
    (700_000, 3),
    (-1_000_000, 1_000_000),
    (1, 0),
    (333_333, 333_333),
)
DEPOSITS = (10, 1_500, 50_000, 10**6, 10**9, 10**15, INT64_MAX // 6)
EXTREMES = (0, 1, -1, 2, 3, 1 << 31, 1 << 32, QUEUED - 1, QUEUED, QUEUED + 1, INT64_MAX, INT64_MAX - 1)
DAY_NS = IDEMPOTENCY_WINDOW_NS

_ORDER_FLAGS = (0, CommandFlag.LEAVES, CommandFlag.REDUCE, CommandFlag.REQUEUE)
_KINDS = {
    CommandType.NEW: 100,
    CommandType.CANCEL: 22,
    CommandType.AMEND: 34,
    CommandType.DEPOSIT: 8,
    CommandType.WITHDRAW: 8,
    CommandType.TICK: 6,
    CommandType.OPEN_ASSET: 1,
    CommandType.OPEN_MARKET: 2,
    CommandType.OPEN_ACCOUNT: 1,
    CommandType.ADD_KEY: 3,
    CommandType.REVOKE_KEY: 2,
    CommandType.SET_MARKET_STATE: 3,
    CommandType.SET_ACCOUNT_STATE: 2,
    CommandType.SET_VENUE_STATE: 1,
    CommandType.START: 1,
    CommandType.DRAINED: 1,
}


class Stream:
    """Draws one command after the other.

    Parameters
    ----------
    random : random.Random
        Every choice comes from it.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.sequence = 0
        self._time_ns = 0
        self._accepted_no = 0
        self._epoch = 0
        self._state = int(VenueState.OPEN)
        self._market_states: dict[int, int] = {}
        self._account_states: dict[int, int] = {}
        self._markets = 0
        self._orders: deque[tuple[int, int, int]] = deque(maxlen=60)
        self._names: deque[tuple[int, int, int]] = deque(maxlen=60)

    def setup(self) -> NDArray[np.void]:
        """Assets, markets with drawn sizes and fees, accounts with drawn deposits."""
        random = self.random
        parts = [make.open_asset(asset=np.arange(1, ASSETS + 1))]
        for base, quote in PAIRS:
            tick_atoms, lot_atoms = random.choice(ATOMS)
            maker, taker = random.choice(FEES)
            parts.append(
                make.open_market(
                    base_asset=base,
                    quote_asset=quote,
                    tick_atoms=tick_atoms,
                    lot_atoms=lot_atoms,
                    maker_fee_ppm=maker,
                    taker_fee_ppm=taker,
                )
            )
        parts.append(make.open_account(account=np.arange(1, ACCOUNTS + 1)))
        number = 1 << 70
        for account in range(1, ACCOUNTS + 1):
            for asset in range(1, ASSETS + 1):
                number += 1
                amount = random.choice(DEPOSITS)
                parts.append(
                    make.deposit(account=account, asset=asset, quantity=amount, transaction_id=number)
                )
        commands = np.concatenate(parts)
        self.sequence += len(commands)
        return commands

    def next(self) -> NDArray[np.void]:
        """COMMAND[1]."""
        random = self.random
        kind = self._kind()
        fields = self._fields(kind)
        fields["type"], fields["version"] = kind, VERSION
        command: NDArray[np.void] = np.zeros(1, COMMAND)
        if random.random() < 0.01:
            command = np.frombuffer(random.randbytes(COMMAND.itemsize), COMMAND).copy()
            command["type"] = random.choice([*_KINDS, 0, 99, 255])
            fields = {}
        elif random.random() < 0.05:
            self._spoil(fields)
        for name, value in fields.items():
            command[name] = value
        self.sequence += 1
        command["sequence"] = self.sequence if random.random() < 0.3 else 0
        command["time_ns"] = self._time()
        return command

    def hear(self, command: np.void, events: NDArray[np.void]) -> None:
        """Learn from the events of `command`."""
        for event in events:
            kind = event["type"]
            if kind == EventType.ACCEPTED:
                self._orders.append((int(event["account"]), int(event["order_id"]), int(event["slot"])))
                client_id = int(command["client_id_hi"]) << 64 | int(command["client_id_lo"])
                if client_id:
                    self._names.append((int(event["account"]), 0, client_id))
                if event["order_id"] & np.uint64(QUEUED):
                    self._accepted_no = max(self._accepted_no, int(command["accepted_no"]))
            elif kind == EventType.CANCELED or (kind == EventType.FILL and event["leaves"] == 0):
                self._forget(int(event["account"]), int(event["order_id"]), int(event["slot"]))
            elif kind == EventType.VENUE_STATE:
                self._state, self._epoch = int(event["amount"]), int(event["quantity"])
            elif kind == EventType.MARKET_STATE:
                self._market_states[int(event["market"])] = int(event["amount"])
            elif kind == EventType.ACCOUNT_STATE:
                self._account_states[int(event["account"])] = int(event["amount"])

    def _forget(self, *order: int) -> None:
        """Mostly name orders that live; now and then one that is done."""
        if order in self._orders and self.random.random() < 0.85:
            self._orders.remove(order)

    def _kind(self) -> int:
        """What comes next; what was shut is likely to be opened again soon."""
        random = self.random
        if self._state != VenueState.OPEN and random.random() < 0.15:
            is_draining = self._state == VenueState.DRAINING
            return CommandType.DRAINED if is_draining else CommandType.SET_VENUE_STATE
        if any(self._market_states.values()) and random.random() < 0.05:
            return CommandType.SET_MARKET_STATE
        if any(self._account_states.values()) and random.random() < 0.05:
            return CommandType.SET_ACCOUNT_STATE
        return int(random.choices(list(_KINDS), list(_KINDS.values()))[0])

    def _fields(self, kind: int) -> dict[str, int]:
        drawn = {
            CommandType.NEW: self._new,
            CommandType.CANCEL: self._cancel,
            CommandType.AMEND: self._amend,
            CommandType.DEPOSIT: self._transfer,
            CommandType.WITHDRAW: self._transfer,
            CommandType.OPEN_ASSET: lambda: {"asset": self.random.choice((0, 0, 1, 7, 1000))},
            CommandType.OPEN_MARKET: self._open_market,
            CommandType.OPEN_ACCOUNT: lambda: {"account": self.random.choice((0, 0, 1, 8, 1000))},
            CommandType.ADD_KEY: self._key,
            CommandType.REVOKE_KEY: self._key,
            CommandType.SET_MARKET_STATE: self._set_market,
            CommandType.SET_VENUE_STATE: self._set_venue,
            CommandType.SET_ACCOUNT_STATE: self._set_account,
            CommandType.START: self._start,
        }.get(CommandType(kind))
        return drawn() if drawn else {}

    def _account(self) -> int:
        if self.random.random() < 0.03:
            return self.random.choice((FEE_ACCOUNT, 99))
        return self.random.randint(1, ACCOUNTS)

    def _market(self) -> int:
        if self.random.random() < 0.02:
            return self.random.choice((0, 6, 99))
        return self.random.choice((1, 1, 1, 1, 2, 2, 3, 4, 5))

    def _price(self, side: int | None = None) -> int:
        """Around 100; bids a little lower than asks, so that a book builds up."""
        random = self.random
        if random.random() < 0.05:
            return random.choice((1, 10**6, 10**12, INT64_MAX, 0, -1))
        return random.randint(95, 101) + (4 if side else 0)

    def _quantity(self) -> int:
        random = self.random
        if random.random() < 0.06:
            return random.choice((0, -1, 1000, 10**9, 10**15, INT64_MAX))
        return random.randint(1, 9)

    def _client_id(self) -> int:
        random = self.random
        return random.choice((0, 0, random.randint(1, 12), random.randint(1, 12) << 64 | 5))

    def _named(self) -> dict[str, int]:
        """Client id, idempotency key and queue number, often used before."""
        random = self.random
        fields: dict[str, int] = {}
        if random.random() < 0.2:
            fields |= {"key_lo": random.randint(0, 25), "key_hi": random.choice((0, 0, 1))}
            fields["body"] = random.choice((0, 0, 0, 1))
        if random.random() < 0.08:
            fields["accepted_no"] = max(self._accepted_no + random.choice((-1, 0, 1, 1, 1, 1, 1, 2)), 0)
        return fields

    def _new(self) -> dict[str, int]:
        random = self.random
        order_type = random.choice((*[0] * 40, *[1] * 9, 2))
        post_only = random.random() < (0.02 if order_type else 0.12)
        side = random.choice((0, 1))
        client_id = self._client_id()
        return self._named() | {
            "account": self._account(),
            "market": self._market(),
            "side": side,
            "order_type": order_type,
            "time_in_force": 0 if post_only else random.choice((*[0] * 24, *[1] * 4, *[2] * 4, 3)),
            "flags": CommandFlag.POST_ONLY if post_only else 0,
            "price": random.choice((0, 0, self._price(side))) if order_type else self._price(side),
            "quantity": self._quantity() if random.random() < 0.8 else random.randint(10, 50),
            "client_id_lo": client_id & (1 << 64) - 1,
            "client_id_hi": client_id >> 64,
        }

    def _name_of_order(self) -> dict[str, int]:
        """An order that was live once, by id and slot or by client id; now and then wrongly."""
        random = self.random
        names = random.choice((self._orders, self._orders, self._names))
        if not names or random.random() < 0.04:
            return {"account": self._account(), "order_id": self.sequence, "slot": 0}
        account, order_id, last = names[random.randrange(len(names))]
        if order_id == 0:
            client_id = last
            return {
                "account": account,
                "slot": NO_SLOT,
                "client_id_lo": client_id & (1 << 64) - 1,
                "client_id_hi": client_id >> 64,
            }
        fields = {"account": account, "order_id": order_id, "slot": last}
        if random.random() < 0.1:
            fields["slot"] = random.choice((NO_SLOT, last + 1 & NO_SLOT, 0))
        if random.random() < 0.05:
            fields["account"] = self._account()
        return fields

    def _cancel(self) -> dict[str, int]:
        return self._named() | self._name_of_order()

    def _amend(self) -> dict[str, int]:
        random = self.random
        flags = random.choice(_ORDER_FLAGS)
        if random.random() < 0.1:
            flags |= random.choice(_ORDER_FLAGS)
        return (
            self._named()
            | self._name_of_order()
            | {
                "flags": flags,
                "price": random.choice((0, 0, self._price())),
                "quantity": random.choice((0, self._quantity(), random.randint(1, 12))),
            }
        )

    def _transfer(self) -> dict[str, int]:
        random = self.random
        return self._named() | {
            "account": self._account(),
            "asset": random.choice((1, 2, 3, 4, 1, 2, 3, 4, 0, 9)),
            "quantity": random.choice((*DEPOSITS, 1, 100, INT64_MAX, self._quantity())),
            "client_id_lo": random.randint(0, 400),
            "client_id_hi": random.choice((0, 1)),
        }

    def _open_market(self) -> dict[str, int]:
        random = self.random
        tick_atoms, lot_atoms = random.choice((*ATOMS, (0, 1), (1, -1)))
        maker, taker = random.choice((*FEES, (-5, 4), (0, 1_000_001), (1_000_001, 0), (0, -1)))
        return {
            "market": random.choice((0, 0, 0, 1, 8, 1000)),
            "asset": random.randint(0, ASSETS + 1),
            "slot": random.randint(1, ASSETS + 1),
            "price": tick_atoms,
            "quantity": lot_atoms,
            "trigger_price": maker,
            "expire_time_ns": taker,
        }

    def _key(self) -> dict[str, int]:
        random = self.random
        return {
            "client_id_lo": random.choice((0, 1, 2)),
            "client_id_hi": random.choice((0, (1 << 64) - 1)),
            "key_lo": random.choice((0, 7)),
            "key_hi": random.choice((0, 1 << 63)),
            "account": random.choice((0, 1, 2, 99)),
            "asset": random.choice((0, 1, 7)),
            "expire_time_ns": random.choice((0, 0, 10, -1)),
        }

    def _set_market(self) -> dict[str, int]:
        shut = [market for market, state in self._market_states.items() if state]
        if shut and self.random.random() < 0.7:
            return {"market": self.random.choice(shut), "quantity": MarketState.OPEN}
        return {
            "market": self.random.choice((1, 2, 3, 99)),
            "quantity": self.random.choice((0, 1, 2, 3, 4, -1)),
        }

    def _set_venue(self) -> dict[str, int]:
        if self._state != VenueState.OPEN and self.random.random() < 0.8:
            return {"quantity": VenueState.OPEN}
        return {"quantity": self.random.choice((0, 1, 2, 3, 4, 5, -1))}

    def _set_account(self) -> dict[str, int]:
        shut = [account for account, state in self._account_states.items() if state]
        if shut and self.random.random() < 0.7:
            return {"account": self.random.choice(shut), "quantity": AccountState.ACTIVE}
        return {"account": self._account(), "quantity": self.random.choice((0, 1, 1, 2, -1))}

    def _start(self) -> dict[str, int]:
        return {"quantity": min(self._epoch + self.random.choice((-1, 0, 1, 1, 5)), INT64_MAX)}

    def _time(self) -> int:
        """Logged time: mostly still, often a little on, sometimes a day, rarely backwards."""
        draw = self.random.random()
        if draw < 0.5:
            return 0
        if draw < 0.97:
            self._time_ns += self.random.randint(0, 1000)
        elif draw < 0.985:
            self._time_ns += DAY_NS + self.random.choice((-1001, -1, 0, 1))
        elif draw < 0.9985:
            return self.random.choice((-1, -INT64_MAX, self._time_ns - 1000))
        else:
            self._time_ns = INT64_MAX
        self._time_ns = min(self._time_ns, INT64_MAX)
        return self._time_ns

    def _spoil(self, fields: dict[str, int]) -> None:
        """Give one field of the record an extreme value."""
        name = self.random.choice(
            [each for each in COMMAND.names or () if each not in ("sequence", "time_ns")]
        )
        fields[name] = extreme(self.random, COMMAND[name])


def extreme(random: Random, dtype: np.dtype[Any]) -> int:
    """A value at some edge of an integer type."""
    bounds = np.iinfo(dtype)
    edges = [value for value in EXTREMES if bounds.min <= value <= bounds.max]
    return int(random.choice([*edges, int(bounds.min), int(bounds.max)]))
