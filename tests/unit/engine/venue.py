"""A small venue to try rules on: the same for the core and for the twin.

Market 1 trades asset 1 (base) against asset 2 (quote); accounts 1, 2 and 3.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from engine import commands as make
from engine.types import EventFlag, EventType, Reason

BUY, SELL = 0, 1
FUNDS = 1_000_000


class Venue:
    """An engine, and each command as a call that returns its events as dicts."""

    def __init__(self, kind: type, *, maker: int = 0, taker: int = 0, tick: int = 1, lot: int = 1) -> None:
        self.kind = kind
        self.engine = kind()
        self.transactions = 1_000
        self.run(make.open_asset(), make.open_asset())
        self.run(
            make.open_market(
                base_asset=1,
                quote_asset=2,
                tick_atoms=tick,
                lot_atoms=lot,
                maker_fee_ppm=maker,
                taker_fee_ppm=taker,
            )
        )
        self.run(*[make.open_account() for _ in range(3)])

    def fund(self, amount: int = FUNDS) -> "Venue":
        """Give every account some of both assets."""
        for account in (1, 2, 3):
            for asset in (1, 2):
                self.deposit(account, asset, amount)
        return self

    def run(self, *commands: Any) -> list[dict[str, int]]:
        return as_dicts(self.engine.apply(np.concatenate(commands)))

    def deposit(self, account: int, asset: int, amount: int) -> list[dict[str, int]]:
        self.transactions += 1
        return self.run(
            make.deposit(account=account, asset=asset, quantity=amount, transaction_id=self.transactions)
        )

    def new(self, account: int, side: int, price: int, quantity: int, **fields: Any) -> list[dict[str, int]]:
        market = fields.pop("market", 1)
        return self.run(
            make.new(account=account, market=market, side=side, price=price, quantity=quantity, **fields)
        )

    def rest(self, account: int, side: int, price: int, quantity: int, **fields: Any) -> dict[str, int]:
        """An order that must rest whole; its ACCEPTED names it."""
        event = self.new(account, side, price, quantity, **fields)[0]
        assert (event["type"], event["flags"] & EventFlag.BOOKED) == (EventType.ACCEPTED, EventFlag.BOOKED)
        return event

    def cancel(self, order: dict[str, int], **fields: Any) -> list[dict[str, int]]:
        return self.run(make.cancel(**{**named(order), **fields}))

    def amend(self, order: dict[str, int], **fields: Any) -> list[dict[str, int]]:
        return self.run(make.amend(**{**named(order), **fields}))

    def balance(self, account: int, asset: int) -> tuple[int, int]:
        """(available, held)."""
        rows = self.engine.dump()["balances"]
        rows = rows[(rows["account"] == account) & (rows["asset"] == asset)]
        return (int(rows["available"][0]), int(rows["held"][0])) if len(rows) else (0, 0)

    def bids(self) -> list[tuple[int, int, int]]:
        return [tuple(level) for level in self.engine.depth(1, 100)[BUY].tolist()]

    def asks(self) -> list[tuple[int, int, int]]:
        return [tuple(level) for level in self.engine.depth(1, 100)[SELL].tolist()]


def named(order: dict[str, int]) -> dict[str, int]:
    """How CANCEL and AMEND name an order."""
    return {"account": order["account"], "order_id": order["order_id"], "slot": order["slot"]}


def as_dicts(events: Any) -> list[dict[str, int]]:
    names = events.dtype.names
    return [dict(zip(names, row, strict=True)) for row in events.tolist()]


def without_balances(events: list[dict[str, int]]) -> list[dict[str, int]]:
    return [event for event in events if event["type"] != EventType.BALANCE]


def types_of(events: list[dict[str, int]]) -> list[EventType]:
    return [EventType(event["type"]) for event in events if event["type"] != EventType.BALANCE]


def reason_of(events: list[dict[str, int]]) -> Reason:
    """Reason of a command that was refused and changed nothing else."""
    assert [event["type"] for event in events] == [EventType.REJECTED], events
    return Reason(events[0]["reason"])


def fills(events: list[dict[str, int]]) -> list[tuple[int, int, int]]:
    """(account, price, quantity) of the makers that were hit, in order."""
    return [
        (event["account"], event["price"], event["quantity"])
        for event in events
        if event["type"] == EventType.FILL and not event["flags"] & EventFlag.TAKER
    ]


Maker = Callable[..., Venue]
