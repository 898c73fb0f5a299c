"""The events of a command, one method an event: each is a row of the table in README."""

from engine.reference.records import ApiKey, Command, Market, Order, order_id_of
from engine.types import (
    INT64_MAX,
    NO_SLOT,
    QUEUED,
    VERSION,
    CommandType,
    EventFlag,
    EventType,
    Reason,
    Side,
)

EventRow = tuple[int, ...]
"""A row of EVENT: its fields in the order of the record."""

_NAMES_AN_ORDER = (CommandType.CANCEL, CommandType.AMEND)
_MAY_BE_QUEUED = (CommandType.NEW, CommandType.CANCEL)


class Events:
    """Collects rows of EVENT; `sequence` is that of the command being applied."""

    def __init__(self) -> None:
        self.rows: list[EventRow] = []
        self.sequence = 0

    def accepted(self, order: Order, booked: bool) -> None:
        kind = order.order_type | order.time_in_force << 8 | order.flags << 32
        self._order(
            EventType.ACCEPTED, order, order.price, order.quantity, order.quantity, kind, _booked(booked)
        )

    def rejected(self, command: Command, reason: Reason) -> None:
        order_id, slot, flags = 0, NO_SLOT, 0
        if command.type == CommandType.NEW:
            order_id = order_id_of(command, self.sequence)
            flags = EventFlag.SELL if command.side == Side.SELL else 0
        elif command.type in _NAMES_AN_ORDER:
            order_id, slot = command.order_id, command.slot
        self._row(
            EventType.REJECTED,
            reason=reason,
            slot=slot,
            flags=flags,
            order_id=order_id,
            account=command.account,
            market=command.market,
            price=command.price,
            quantity=command.quantity,
            amount=command.type,
        )

    def duplicate(self, command: Command, first_sequence: int) -> None:
        queued = command.type in _MAY_BE_QUEUED and command.accepted_no
        self._row(
            EventType.DUPLICATE,
            order_id=QUEUED | command.accepted_no if queued else 0,
            account=command.account,
            market=command.market,
            quantity=first_sequence,
            amount=command.type,
        )

    def fill(self, order: Order, price: int, quantity: int, fee: int, *, taker: bool) -> None:
        flag = EventFlag.TAKER if taker else EventFlag.BOOKED
        self._order(EventType.FILL, order, price, quantity, order.leaves, fee, flag)

    def rested(self, order: Order) -> None:
        self._order(EventType.RESTED, order, order.price, order.leaves, order.leaves, 0, EventFlag.BOOKED)

    def canceled(self, order: Order, reason: Reason, quantity: int, *, booked: bool) -> None:
        flag = _booked(booked)
        self._order(EventType.CANCELED, order, order.price, quantity, 0, order.filled, flag, reason)

    def unbooked(self, order: Order) -> None:
        self._order(EventType.UNBOOKED, order, order.price, order.leaves, 0, 0, EventFlag.BOOKED)

    def amended_in_place(self, order: Order, taken_off: int) -> None:
        flag = EventFlag.BOOKED
        self._order(EventType.AMENDED, order, order.price, order.quantity, order.leaves, taken_off, flag)

    def amended(self, order: Order) -> None:
        self._order(EventType.AMENDED, order, order.price, order.quantity, order.leaves, 0, 0)

    def balance(self, account: int, asset: int, available: int, held: int) -> None:
        self._row(EventType.BALANCE, account=account, market=asset, price=available, quantity=held)

    def deposited(self, account: int, asset: int, quantity: int) -> None:
        self._row(EventType.DEPOSITED, account=account, market=asset, quantity=quantity)

    def withdrawn(self, account: int, asset: int, quantity: int) -> None:
        self._row(EventType.WITHDRAWN, account=account, market=asset, quantity=quantity)

    def asset_opened(self, asset: int) -> None:
        self._row(EventType.ASSET_OPENED, market=asset)

    def market_opened(self, market: Market) -> None:
        self._row(
            EventType.MARKET_OPENED,
            market=market.market,
            account=market.base_asset,
            slot=market.quote_asset,
            price=market.tick_atoms,
            quantity=market.lot_atoms,
            leaves=market.maker_fee_ppm,
            amount=market.taker_fee_ppm,
        )

    def account_opened(self, account: int) -> None:
        self._row(EventType.ACCOUNT_OPENED, account=account)

    def key_added(self, key: ApiKey) -> None:
        self._key(EventType.KEY_ADDED, key)

    def key_revoked(self, key: ApiKey) -> None:
        self._key(EventType.KEY_REVOKED, key)

    def market_state(self, market: int, state: int) -> None:
        self._row(EventType.MARKET_STATE, market=market, amount=state)

    def venue_state(self, state: int, epoch: int) -> None:
        self._row(EventType.VENUE_STATE, amount=state, quantity=epoch)

    def account_state(self, account: int, state: int) -> None:
        self._row(EventType.ACCOUNT_STATE, account=account, amount=state)

    def _key(self, event: EventType, key: ApiKey) -> None:
        self._row(
            event,
            order_id=key.hash[0],
            price=_as_signed(key.hash[1]),
            quantity=_as_signed(key.hash[2]),
            leaves=_as_signed(key.hash[3]),
            account=key.account,
            market=key.scopes,
            amount=key.expire_time_ns,
        )

    def _order(
        self,
        event: EventType,
        order: Order,
        price: int,
        quantity: int,
        leaves: int,
        amount: int,
        flags: int,
        reason: Reason = Reason.NONE,
    ) -> None:
        self._row(
            event,
            flags=flags | (EventFlag.SELL if order.side == Side.SELL else 0),
            reason=reason,
            slot=order.slot,
            order_id=order.order_id,
            account=order.account,
            market=order.market,
            price=price,
            quantity=quantity,
            leaves=leaves,
            amount=amount,
        )

    def _row(
        self,
        event: EventType,
        *,
        flags: int = 0,
        reason: int = 0,
        slot: int = NO_SLOT,
        order_id: int = 0,
        account: int = 0,
        market: int = 0,
        price: int = 0,
        quantity: int = 0,
        leaves: int = 0,
        amount: int = 0,
    ) -> None:
        head = (event, VERSION, flags, reason, slot, self.sequence, order_id, account, market)
        self.rows.append((*head, price, quantity, leaves, amount))


def _booked(booked: bool) -> int:
    return EventFlag.BOOKED if booked else 0


def _as_signed(word: int) -> int:
    """The same 64 bits read as int64."""
    return word - (1 << 64) if word > INT64_MAX else word
