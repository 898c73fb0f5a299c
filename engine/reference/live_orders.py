"""The live orders and their names: slot, queued id, client id."""

import heapq

from engine.reference.records import Command, Order
from engine.types import NO_SLOT, QUEUED


class LiveOrders:
    """Resting orders, and for the time of its own command the one that is matching."""

    def __init__(self) -> None:
        self.by_slot: dict[int, Order] = {}
        self._by_queued_id: dict[int, Order] = {}
        self._by_client_id: dict[tuple[int, int], Order] = {}
        self._free: list[int] = []
        self._slots_end = 0

    def __len__(self) -> int:
        return len(self.by_slot)

    def client_id_is_live(self, account: int, client_id: int) -> bool:
        return (account, client_id) in self._by_client_id

    def add(self, order: Order) -> None:
        """Name the order; it gets the lowest free slot."""
        if self._free:
            slot = heapq.heappop(self._free)
        else:
            slot = self._slots_end
            self._slots_end += 1
        order.slot = slot
        self._index(order)

    def restore(self, orders: list[Order]) -> None:
        """Name orders that were loaded with their slots; the gaps between them are free."""
        for order in orders:
            self._index(order)
        self._slots_end = max(self.by_slot, default=-1) + 1
        self._free = [slot for slot in range(self._slots_end) if slot not in self.by_slot]

    def remove(self, order: Order) -> None:
        """Forget a finished order; all its names are free again."""
        del self.by_slot[order.slot]
        heapq.heappush(self._free, order.slot)
        if order.order_id & QUEUED:
            del self._by_queued_id[order.order_id]
        if order.client_id:
            del self._by_client_id[order.account, order.client_id]

    def find(self, command: Command) -> Order | None:
        """The order that CANCEL or AMEND names; None when it is not live."""
        if command.order_id == 0:
            return self._by_client_id.get((command.account, command.client_id))
        return self.find_id(command.order_id, command.slot)

    def find_id(self, order_id: int, slot: int) -> Order | None:
        """The order in `slot` if it has that id; without a slot only queued ids are found."""
        if slot == NO_SLOT:
            return self._by_queued_id.get(order_id)
        order = self.by_slot.get(slot)
        return order if order is not None and order.order_id == order_id else None

    def _index(self, order: Order) -> None:
        self.by_slot[order.slot] = order
        if order.order_id & QUEUED:
            self._by_queued_id[order.order_id] = order
        if order.client_id:
            self._by_client_id[order.account, order.client_id] = order
