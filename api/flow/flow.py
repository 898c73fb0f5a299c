"""Order flow in columns: what every recorded format is read into, and the generator makes.

One row is one message and becomes exactly one command, so that the row behind
an event is `sequence - first sequence`: no table leads back from events to input.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.flow import venue
from engine.types import COMMAND, NO_SLOT, VERSION, CommandFlag, CommandType, TimeInForce

Column = NDArray[Any]


class Op(IntEnum):
    """What a row asks for."""

    NEW = 0
    """A limit order; what is not filled rests."""
    IOC = 1
    """A limit order; what is not filled is cancelled."""
    CANCEL = 2
    REDUCE = 3
    """Take `quantity` off what is open; priority is kept."""
    MODIFY = 4
    """New price and open quantity; same price and not more keeps priority."""
    REPLACE = 5
    """New price and open quantity; priority is lost whatever changes."""


_TYPE = np.array([CommandType.NEW] * 2 + [CommandType.CANCEL] + [CommandType.AMEND] * 3, np.uint8)
_FLAGS = np.array(
    [0, 0, 0, CommandFlag.REDUCE, CommandFlag.LEAVES, CommandFlag.LEAVES | CommandFlag.REQUEUE], np.uint16
)
_TAKES_PRICE = np.array([True, True, False, False, True, True])


@dataclass(frozen=True, slots=True)
class Flow:
    """Rows in order.

    Parameters
    ----------
    name : str
        For messages.
    number : int64[n]
        The name of a row in its file (`n`, or a row number from 0); increasing.
    op : uint8[n]
        `Op`.
    order : uint64[n]
        The id of the order, as the file names it.
    side : uint8[n]
        `engine.types.Side`; 0 where the row has none.
    price, quantity : int64[n]
        Ticks and lots; 0 where the row has none.
    prefill : int
        How many of the first rows only build the book, and are not counted.
    """

    name: str
    number: Column
    op: Column
    order: Column
    side: Column
    price: Column
    quantity: Column
    prefill: int = 0

    def __len__(self) -> int:
        return len(self.op)

    def first(self, rows: int) -> "Flow":
        """The first `rows` rows, as a flow."""
        return replace(
            self,
            number=self.number[:rows],
            op=self.op[:rows],
            order=self.order[:rows],
            side=self.side[:rows],
            price=self.price[:rows],
            quantity=self.quantity[:rows],
            prefill=min(self.prefill, rows),
        )

    def commands(self, start: int, stop: int) -> NDArray[np.void]:
        """COMMAND[stop - start] of these rows, for market 1 of `api.flow.venue`; 0.1 µs a row.

        Orders go by client ids; each has its owner by its id alone, so that a
        cancel needs no table either.
        """
        rows = slice(start, stop)
        op = self.op[rows]
        client_id = venue.scramble(self.order[rows])
        commands: NDArray[np.void] = np.zeros(len(op), COMMAND)
        commands["type"] = _TYPE[op]
        commands["version"] = VERSION
        commands["account"] = venue.account_of(client_id)
        commands["market"] = venue.MARKET
        commands["slot"] = NO_SLOT
        commands["flags"] = _FLAGS[op]
        commands["time_in_force"] = np.where(op == Op.IOC, TimeInForce.IOC, TimeInForce.GTC)
        commands["side"] = np.where(op <= Op.IOC, self.side[rows], 0)
        commands["price"] = np.where(_TAKES_PRICE[op], self.price[rows], 0)
        commands["quantity"] = np.where(op == Op.CANCEL, 0, self.quantity[rows])
        commands["client_id_lo"] = client_id
        return commands

    def describe(self, row: int) -> str:
        """One row, for people."""
        side = "BS"[self.side[row]] if self.op[row] <= Op.IOC else "-"
        return (
            f"{self.number[row]:>9}  {Op(int(self.op[row])).name:<7} {side}  id {self.order[row]}  "
            f"price {self.price[row]}  quantity {self.quantity[row]}"
        )

    def around(self, row: int, reach: int = 3) -> str:
        """The rows around `row`, which is marked."""
        rows = range(max(row - reach, 0), min(row + reach + 1, len(self)))
        return "\n".join(f"  {'>' if each == row else ' '} {self.describe(each)}" for each in rows)
