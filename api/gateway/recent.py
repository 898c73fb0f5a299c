"""What the gateway knows beyond the rows: orders it saw made, and events of orders it did not.

PostgreSQL is behind the events, for milliseconds or, when the projector is
stopped, for longer.  Rows as of some sequence R together with what is kept here
are the whole truth as long as ``R >= complete_from``::

      rows know      ├──────────────────────────┤ R
      kept here              ├──────────────────┼───────────────┤ last event
                     complete_from

- an order made after R is here as a view;
- an order made before has a row; what happened to it since is a view's state,
  or waits here as events to be folded into the row.

`complete_from` moves up when something is dropped that the rows may lack: at a
WELCOME after missed events, or when a bound is reached.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from api.gateway.orders import ORDERS_KEPT, OrderCache, OrderView, Row

EVENTS_KEPT = 100_000


class Unseen(NamedTuple):
    """An event of an order that has no view."""

    row: Row
    time_ns: int
    trade_id: str


class RecentOrders(OrderCache):
    """Views of recent orders, and events of others since.

    Attributes
    ----------
    complete_from : int
        Rows at or past this sequence and what is kept here leave nothing out.
    """

    def __init__(self, orders_max: int = ORDERS_KEPT, events_max: int = EVENTS_KEPT) -> None:
        super().__init__(orders_max)
        if events_max < 1:
            raise ValueError(f"room for {events_max} events")
        self._events_max = events_max
        self._created: dict[int, OrderView] = {}
        self._unseen: OrderedDict[int, list[Unseen]] = OrderedDict()
        self._events = 0
        self.complete_from = 0

    def restart(self, sequence: int) -> None:
        """Events before `sequence` were missed: forget all."""
        self.clear()
        self._created.clear()
        self._unseen.clear()
        self._events = 0
        self.complete_from = sequence

    def add(self, view: OrderView) -> None:
        """Keep an order that was just made."""
        self._created[view.order_id] = view
        self._keep(view)

    def adopt(self, view: OrderView) -> None:
        """Keep an order that was made before; `view` is its state as of the last event."""
        self._drop_events(view.order_id)
        self._keep(view)

    def _keep(self, view: OrderView) -> None:
        if len(self) >= self._orders_max and view.order_id not in self._orders:
            oldest = next(iter(self._orders.values()))
            self._created.pop(oldest.order_id, None)
            self.complete_from = max(self.complete_from, oldest.sequence)
        super().add(view)

    def unseen(self, row: Row, time_ns: int, trade_id: str = "") -> None:
        """Keep an event of an order that has no view."""
        order_id = row[6]
        self._unseen.setdefault(order_id, []).append(Unseen(row, time_ns, trade_id))
        self._unseen.move_to_end(order_id)
        self._events += 1
        while self._events > self._events_max:
            events = self._drop_events(next(iter(self._unseen)))
            self.complete_from = max(self.complete_from, events[-1].row[5])

    def _drop_events(self, order_id: int) -> list[Unseen]:
        events = self._unseen.pop(order_id, [])
        self._events -= len(events)
        return events

    def after(self, order_id: int, sequence: int) -> list[Unseen]:
        """Events of an order without a view that came after `sequence`."""
        return [event for event in self._unseen.get(order_id, ()) if event.row[5] > sequence]

    def forget(self, sequence: int) -> None:
        """The rows hold everything up to `sequence`."""
        while self._unseen:
            order_id, events = next(iter(self._unseen.items()))
            if events[-1].row[5] > sequence:
                return
            self._drop_events(order_id)

    def created_after(self, account: int, sequence: int) -> list[OrderView]:
        """Orders of an account that were made after `sequence`, newest first; O(made since)."""
        return [view for view in self._made_after(sequence) if view.account == account]

    def _made_after(self, sequence: int) -> Iterator[OrderView]:
        for view in reversed(self._created.values()):
            if view.created_sequence <= sequence:
                return
            yield view
