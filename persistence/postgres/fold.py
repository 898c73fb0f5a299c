"""Folds a batch of events into final rows: what the projector has to write, and no more.

An order that was entered, filled five times and cancelled within the batch is
one row. Pure: arrays in, arrays out; no database. Order of events is order in
the arrays, and numpy's assignment through repeated indexes keeps the last one,
so "the last event decides" is one assignment:

    leaves[inverse] = events.leaves        # inverse: event → index of its order

Sums of 64-bit values can exceed 64 bits, so they are summed as high and low
halves of 32 bits, each of which fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import CommandFlag, EventFlag, EventType
from persistence.postgres.errors import EventGap
from persistence.postgres.frames import EventFrame, Events
from persistence.text import TextTag, read_text

Integers = NDArray[Any]

_ORDER_EVENTS = np.zeros(256, bool)
_ORDER_EVENTS[
    [EventType.ACCEPTED, EventType.FILL, EventType.RESTED, EventType.CANCELED, EventType.AMENDED]
] = True
# UNBOOKED is always followed by AMENDED in its command, which says all that a row holds.

_DEFINING = np.zeros(256, bool)
_DEFINING[
    [
        EventType.DEPOSITED,
        EventType.WITHDRAWN,
        EventType.ASSET_OPENED,
        EventType.MARKET_OPENED,
        EventType.ACCOUNT_OPENED,
        EventType.KEY_ADDED,
        EventType.KEY_REVOKED,
        EventType.MARKET_STATE,
        EventType.VENUE_STATE,
        EventType.ACCOUNT_STATE,
    ]
] = True

UNCHANGED = -1
"""In `Changed.price`, `quantity`, `priority`: the batch says nothing about it."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Text entries of the batch by the sequence of their command."""

    client_order_ids: dict[int, bytes]
    idempotency_keys: dict[int, bytes]
    definitions: dict[int, bytes]
    submissions: dict[int, bytes]
    transaction_ids: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Orders:
    """Final values of the orders that the batch touched, one element an order.

    `born` is the index of the ACCEPTED event in `events`, or −1 for an order of
    an earlier batch; then `filled`, `notional` and `fee` are what is added.
    """

    order_id: Integers
    born: Integers
    events: Events
    times: Integers
    price: Integers
    quantity: Integers
    filled: Integers
    leaves: Integers
    cancelled: Integers
    reason: Integers
    priority: Integers
    notional_high: Integers
    notional_low: Integers
    fee_high: Integers
    fee_low: Integers
    updated_sequence: Integers
    updated_ns: Integers

    def total(self, name: str) -> Integers:
        """The sum of `notional` or `fee`: int64, or Python integers where one would not fit."""
        high: Integers = getattr(self, name + "_high")
        low: Integers = getattr(self, name + "_low")
        carried = high + (low >> 32)
        if carried.size and (carried.max() >= 1 << 31 or carried.min() < -(1 << 31)):
            wide: Integers = high.astype(object) * (1 << 32) + low.astype(object)
            return wide
        narrow: Integers = (carried << 32) + (low & 0xFFFFFFFF)
        return narrow


@dataclass(frozen=True, slots=True)
class Trades:
    """One element a trade: its maker's and its taker's FILL, and its number within the command."""

    maker: Events
    taker: Events
    number: Integers
    times: Integers


@dataclass(frozen=True, slots=True)
class Batch:
    """What frames in a row come to."""

    events: Events
    times: Integers
    """Logged time of each event, ns."""
    texts: Texts
    orders: Orders
    trades: Trades
    balances: Events
    """The last BALANCE of each (account, asset)."""
    rejections: Events
    rejection_times: Integers
    definitions: list[tuple[int, Any]]
    """Index and record of the rare events, in order."""


def fold(frames: Sequence[EventFrame]) -> Batch:
    """Fold frames in sequence order.

    Raises
    ------
    EventGap
        FILL events that do not come in pairs of maker and taker.
    """
    events = np.concatenate([frame.events for frame in frames])
    counts = [len(frame.events) for frame in frames]
    times = np.repeat(np.array([frame.time_ns for frame in frames], np.int64), counts)
    kinds = events["type"]
    rejected = np.flatnonzero(kinds == EventType.REJECTED)
    rare = np.flatnonzero(_DEFINING[kinds])
    return Batch(
        events=events,
        times=times,
        texts=_texts(frames),
        orders=_fold_orders(events, times, np.flatnonzero(_ORDER_EVENTS[kinds])),
        trades=_fold_trades(events, times, np.flatnonzero(kinds == EventType.FILL)),
        balances=_last_balances(events[kinds == EventType.BALANCE]),
        rejections=events[rejected],
        rejection_times=times[rejected],
        definitions=[(int(i), events[i]) for i in rare],
    )


def _texts(frames: Sequence[EventFrame]) -> Texts:
    by_tag: dict[int, dict[int, bytes]] = {int(tag): {} for tag in TextTag}
    for frame in frames:
        first = frame.first_sequence
        for index, tag, value in read_text(frame.text):
            entries = by_tag.get(tag)
            if entries is not None:
                entries[first + index] = value
    return Texts(
        client_order_ids=by_tag[TextTag.CLIENT_ORDER_ID],
        idempotency_keys=by_tag[TextTag.IDEMPOTENCY_KEY],
        definitions=by_tag[TextTag.DEFINITION],
        submissions=by_tag[TextTag.SUBMISSION],
        transaction_ids=by_tag[TextTag.TRANSACTION_ID],
    )


def _fold_orders(events: Events, times: Integers, where: Integers) -> Orders:
    mine = events[where]
    kinds = mine["type"]
    order_id, inverse = np.unique(mine["order_id"].astype(np.int64), return_inverse=True)
    count = len(order_id)

    def last(mask: NDArray[np.bool_], values: Integers, otherwise: int) -> Integers:
        out = np.full(count, otherwise, np.int64)
        out[inverse[mask]] = values[mask]
        return out

    def add(values: Integers) -> tuple[Integers, Integers]:
        high, low = np.zeros(count, np.int64), np.zeros(count, np.int64)
        np.add.at(high, inverse[fill], values >> 32)
        np.add.at(low, inverse[fill], values & 0xFFFFFFFF)
        return high, low

    every = np.ones(len(mine), bool)
    fill = kinds == EventType.FILL
    rested = kinds == EventType.RESTED
    accepted = kinds == EventType.ACCEPTED
    canceled = kinds == EventType.CANCELED
    terms = accepted | (kinds == EventType.AMENDED)
    sequence = mine["sequence"].astype(np.int64)
    filled = np.zeros(count, np.int64)
    np.add.at(filled, inverse[fill], mine["quantity"][fill])
    notional = add(mine["price"][fill] * mine["quantity"][fill])
    fee = add(mine["amount"][fill])
    return Orders(
        order_id=order_id,
        born=last(accepted, where, UNCHANGED),
        events=events,
        times=times,
        price=last(terms, mine["price"], UNCHANGED),
        quantity=last(terms, mine["quantity"], UNCHANGED),
        filled=filled,
        leaves=last(every, mine["leaves"], 0),
        cancelled=last(canceled, mine["quantity"], 0),
        reason=last(canceled, mine["reason"], 0),
        priority=last(accepted | rested, sequence, UNCHANGED),
        notional_high=notional[0],
        notional_low=notional[1],
        fee_high=fee[0],
        fee_low=fee[1],
        updated_sequence=last(every, sequence, 0),
        updated_ns=last(every, times[where], 0),
    )


def _fold_trades(events: Events, times: Integers, where: Integers) -> Trades:
    fills = events[where]
    maker, taker = fills[0::2], fills[1::2]
    paired = len(maker) == len(taker) and bool(
        np.all(maker["sequence"] == taker["sequence"])
        and np.all(maker["price"] == taker["price"])
        and np.all(maker["quantity"] == taker["quantity"])
        and not np.any(maker["flags"] & EventFlag.TAKER)
        and np.all(taker["flags"] & EventFlag.TAKER)
    )
    if not paired:
        raise EventGap(
            "FILL events do not come in pairs of maker and taker; the event log is not an engine's"
        )
    place = np.arange(len(maker))
    fresh = np.ones(len(maker), bool)
    fresh[1:] = maker["sequence"][1:] != maker["sequence"][:-1]
    start = np.maximum.accumulate(np.where(fresh, place, 0))
    return Trades(maker=maker, taker=taker, number=place - start + 1, times=times[where[0::2]])


def _last_balances(balances: Events) -> Events:
    key = (balances["account"].astype(np.uint64) << np.uint64(32)) | balances["market"]
    _, backwards = np.unique(key[::-1], return_index=True)
    return balances[len(balances) - 1 - backwards]


def accepted_terms(amount: Integers) -> tuple[Integers, Integers, Integers]:
    """order_type, time_in_force and post_only out of an ACCEPTED event's `amount`."""
    return amount & 0xFF, (amount >> 8) & 0xFF, ((amount >> 32) & CommandFlag.POST_ONLY) != 0
