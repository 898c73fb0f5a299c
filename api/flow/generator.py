"""Synthetic order flow, seeded: for demos and load where no recorded flow is at hand.

The mid price takes a random walk; limit orders stand around it, most are cancelled,
some are moved, one in eight takes.  Like recorded flow it also names orders that
are done by then: the generator does not match, so it cannot know.
"""

from random import Random

import numpy as np

from api.flow.flow import Flow, Op
from engine.types import Side

START_PRICE = 100_000
TICKS_AROUND_MID = 20
QUANTITY_MAX = 100
LIVE_MAX = 5_000
"""How many orders are remembered as cancellable; beyond it the oldest is cancelled."""

_OPS = (Op.NEW, Op.IOC, Op.CANCEL, Op.REDUCE, Op.MODIFY)
_WEIGHTS = (50, 6, 38, 2, 4)
_TAKING = 0.12
"""Share of limit orders that reach through the mid price."""


def synthetic_flow(rows: int, seed: int = 1, start_price: int = START_PRICE) -> Flow:
    """Make `rows` rows; the same seed gives the same rows.

    Parameters
    ----------
    rows : int
        At least 0.
    seed : int
    start_price : int
        Ticks; at least twice `TICKS_AROUND_MID`.

    Returns
    -------
    Flow
        Rows numbered from 1, order ids dense from 1; about 3 µs a row.

    Raises
    ------
    ValueError
        A parameter is out of range.
    """
    if rows < 0 or start_price < 2 * TICKS_AROUND_MID:
        raise ValueError(f"rows {rows} below 0, or start price {start_price} too low to walk around")
    random = Random(seed)
    mid = start_price
    orders = 0
    live: dict[int, Side] = {}
    made: list[tuple[int, int, int, int, int]] = []
    for op in random.choices(_OPS, _WEIGHTS, k=rows):
        mid = max(mid + random.choice((-1, 0, 0, 0, 1)), 2 * TICKS_AROUND_MID)
        if len(live) > LIVE_MAX:
            op = Op.CANCEL
        elif not live and op > Op.IOC:
            op = Op.NEW
        quantity = random.randint(1, QUANTITY_MAX)
        if op <= Op.IOC:
            orders += 1
            side = random.choice((Side.BUY, Side.SELL))
            takes = op == Op.IOC or random.random() < _TAKING
            made.append((op, orders, side, _price(random, mid, side, takes=takes), quantity))
            if op == Op.NEW:
                live[orders] = side
            continue
        order = next(iter(live)) if len(live) > LIVE_MAX else _any(random, live, orders)
        side = live[order]
        if op == Op.CANCEL:
            del live[order]
            made.append((op, order, side, 0, 0))
        elif op == Op.REDUCE:
            made.append((op, order, side, 0, random.randint(1, QUANTITY_MAX // 10)))
        else:
            made.append((op, order, side, _price(random, mid, side, takes=False), quantity))
    table = np.array(made, np.int64).reshape(-1, 5).T
    return Flow(
        name=f"synthetic flow, seed {seed}",
        number=np.arange(1, rows + 1),
        op=table[0].astype(np.uint8),
        order=table[1].astype(np.uint64),
        side=table[2].astype(np.uint8),
        price=table[3],
        quantity=table[4],
    )


def _price(random: Random, mid: int, side: Side, *, takes: bool) -> int:
    """Nearer to the mid more often; on the other side of it when it takes."""
    distance = min(random.randint(1, TICKS_AROUND_MID), random.randint(1, TICKS_AROUND_MID))
    below = (side == Side.BUY) != takes
    return mid - distance if below else mid + distance


def _any(random: Random, live: dict[int, Side], orders: int) -> int:
    """An order that may live, the younger the likelier; O(1) however many there are."""
    for _ in range(8):
        order = orders - int(random.expovariate(1 / 200))
        if order in live:
            return order
    return next(reversed(live))
