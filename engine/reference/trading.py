"""NEW, CANCEL, AMEND: the rules in the order in which README checks them, then the deed."""

from engine.reference.events import Events
from engine.reference.fees import hold_of
from engine.reference.ledger import held_asset
from engine.reference.matcher import can_fill_whole, match, would_cross
from engine.reference.records import Command, Order, new_order
from engine.reference.venue import Venue
from engine.types import (
    INT64_MAX,
    ORDERS_MAX,
    AccountState,
    CommandFlag,
    MarketState,
    OrderType,
    Reason,
    Side,
    TimeInForce,
    VenueState,
)

# Plain integers: the complement of an IntFlag leaves out the bits that have no name.
_NEW_FLAGS = int(CommandFlag.POST_ONLY)
_AMEND_FLAGS = int(CommandFlag.LEAVES | CommandFlag.REDUCE | CommandFlag.REQUEUE)


def new(venue: Venue, command: Command, events: Events) -> Reason:
    """Accept an order, match it, rest or cancel what is left."""
    reason = _refuse_state(venue, command, queued=command.accepted_no > 0) or _refuse_fields(venue, command)
    if reason:
        return reason
    market = venue.markets[command.market]
    book = venue.books[command.market]
    order = new_order(command, venue.sequence, market)
    crosses = would_cross(book, order)
    if order.is_post_only and crosses:
        return Reason.POST_ONLY_WOULD_CROSS
    hold = hold_of(order, market, order.price, order.leaves)
    if hold > venue.ledger.available(order.account, held_asset(order, market)):
        return Reason.INSUFFICIENT_FUNDS

    venue.journal.orders[order.order_id] = order
    if order.may_rest:
        venue.orders.add(order)
    venue.ledger.set_hold(order, market, hold)
    rests_whole = order.may_rest and not crosses
    events.accepted(order, booked=rests_whole)
    if rests_whole:
        book.add(order)
        return Reason.NONE
    if order.time_in_force == TimeInForce.FOK and not can_fill_whole(venue, order):
        _end(venue, order, Reason.FOK_NOT_FILLABLE, events)
        return Reason.NONE
    out_of_funds = match(venue, order, events)
    if order.leaves == 0:
        _forget(venue, order)
    elif order.may_rest:
        book.add(order)
        events.rested(order)
    elif out_of_funds:
        _end(venue, order, out_of_funds, events)
    elif order.order_type == OrderType.MARKET:
        _end(venue, order, Reason.MARKET_REMAINDER, events)
    else:
        _end(venue, order, Reason.IOC_REMAINDER, events)
    return Reason.NONE


def cancel(venue: Venue, command: Command, events: Events) -> Reason:
    """Take a resting order out of the book and release its hold."""
    if venue.state == VenueState.HALTED:
        return Reason.VENUE_HALTED
    order, reason = _named_order(venue, command)
    if order is None:
        return reason
    if venue.markets[order.market].state == MarketState.HALTED:
        return Reason.MARKET_HALTED
    _unbook_and_end(venue, order, Reason.USER_REQUESTED, events)
    return Reason.NONE


def amend(venue: Venue, command: Command, events: Events) -> Reason:
    """Change price or quantity; what asks for more of the book goes to the back, and may trade."""
    reason = _refuse_venue(venue, command, queued=False)
    if reason:
        return reason
    order, reason = _named_order(venue, command)
    if order is None:
        return reason
    reason = _refuse_amend(venue.markets[order.market].state, command)
    if reason:
        return reason
    price = command.price or order.price
    leaves = _new_leaves(order, command)
    if order.filled + leaves > INT64_MAX:
        return Reason.OVERFLOW
    if leaves <= 0:
        _unbook_and_end(venue, order, Reason.AMENDED_AWAY, events)
        return Reason.NONE
    requeue = command.flags & CommandFlag.REQUEUE
    if price == order.price and leaves <= order.leaves and not requeue:
        _reduce_in_place(venue, order, leaves, events)
        return Reason.NONE
    return _requeue(venue, order, price, leaves, events)


def _refuse_venue(venue: Venue, command: Command, *, queued: bool) -> Reason:
    """What the states of venue and account forbid."""
    if venue.state == VenueState.HALTED:
        return Reason.VENUE_HALTED
    if venue.state == VenueState.DRAINING and not queued:
        return Reason.VENUE_DRAINING
    if venue.state == VenueState.CANCEL_ONLY:
        return Reason.VENUE_CANCEL_ONLY
    if venue.accounts[command.account].state == AccountState.SUSPENDED:
        return Reason.ACCOUNT_SUSPENDED
    return Reason.NONE


def _refuse_state(venue: Venue, command: Command, *, queued: bool) -> Reason:
    """What the states of venue, account and market forbid a NEW."""
    reason = _refuse_venue(venue, command, queued=queued)
    if reason:
        return reason
    if command.market not in venue.markets:
        return Reason.UNKNOWN_MARKET
    state = venue.markets[command.market].state
    if state == MarketState.HALTED:
        return Reason.MARKET_HALTED
    if state == MarketState.CANCEL_ONLY:
        return Reason.MARKET_CANCEL_ONLY
    if state == MarketState.POST_ONLY and not command.flags & CommandFlag.POST_ONLY:
        return Reason.MARKET_POST_ONLY
    return Reason.NONE


def _refuse_fields(venue: Venue, command: Command) -> Reason:
    """What is wrong with the fields of a NEW."""
    is_market = command.order_type == OrderType.MARKET
    immediate = is_market or command.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
    if command.side > Side.SELL:
        return Reason.INVALID_SIDE
    if command.order_type > OrderType.MARKET:
        return Reason.INVALID_ORDER_TYPE
    if command.time_in_force > TimeInForce.FOK:
        return Reason.INVALID_TIME_IN_FORCE
    if command.flags & ~_NEW_FLAGS or (command.flags & CommandFlag.POST_ONLY and immediate):
        return Reason.INVALID_FLAGS
    if command.self_trade or command.trigger_price or command.expire_time_ns:
        return Reason.INVALID_FLAGS
    if command.quantity < 1:
        return Reason.INVALID_QUANTITY
    if command.price < (0 if is_market else 1):
        return Reason.INVALID_PRICE
    if venue.markets[command.market].overflows(command.price, command.quantity):
        return Reason.OVERFLOW
    if command.client_id and venue.orders.client_id_is_live(command.account, command.client_id):
        return Reason.DUPLICATE_CLIENT_ORDER_ID
    if len(venue.orders) >= ORDERS_MAX:
        return Reason.LIMIT_REACHED
    return Reason.NONE


def _refuse_amend(market_state: int, command: Command) -> Reason:
    """What the market's state forbids, and what is wrong with the fields of an AMEND."""
    flags, price, quantity = command.flags, command.price, command.quantity
    reduces, names_leaves = flags & CommandFlag.REDUCE, flags & CommandFlag.LEAVES
    if market_state == MarketState.HALTED:
        return Reason.MARKET_HALTED
    if market_state == MarketState.CANCEL_ONLY:
        return Reason.MARKET_CANCEL_ONLY
    if flags & ~_AMEND_FLAGS or (reduces and names_leaves):
        return Reason.INVALID_FLAGS
    if price < 0:
        return Reason.INVALID_PRICE
    if quantity < 0 or (reduces and quantity == 0):
        return Reason.INVALID_QUANTITY
    if price == 0 and quantity == 0 and not flags & CommandFlag.REQUEUE:
        return Reason.INVALID_QUANTITY
    return Reason.NONE


def _named_order(venue: Venue, command: Command) -> tuple[Order | None, Reason]:
    """The live order that the command names and owns, or why there is none."""
    if command.order_id == 0 and command.client_id == 0:
        return None, Reason.INVALID_IDENTIFIER
    order = venue.orders.find(command)
    if order is None:
        return None, Reason.NOT_LIVE
    if order.account != command.account:
        return None, Reason.NOT_OWNER
    return order, Reason.NONE


def _new_leaves(order: Order, command: Command) -> int:
    if command.quantity == 0:
        return order.leaves
    if command.flags & CommandFlag.LEAVES:
        return command.quantity
    if command.flags & CommandFlag.REDUCE:
        return order.leaves - command.quantity
    return command.quantity - order.filled


def _reduce_in_place(venue: Venue, order: Order, leaves: int, events: Events) -> None:
    """Less at the same price: priority is kept."""
    market = venue.markets[order.market]
    taken_off = order.leaves - leaves
    venue.books[order.market].shrink(order, taken_off)
    order.leaves = leaves
    order.quantity = order.filled + leaves
    venue.journal.orders[order.order_id] = order
    venue.ledger.set_hold(order, market, hold_of(order, market, order.price, leaves))
    events.amended_in_place(order, taken_off)


def _requeue(venue: Venue, order: Order, price: int, leaves: int, events: Events) -> Reason:
    """Another price or more: to the back of the queue, after trading what crosses."""
    market = venue.markets[order.market]
    book = venue.books[order.market]
    quantity = order.filled + leaves
    if market.overflows(price, quantity):
        return Reason.OVERFLOW
    best = book.best(1 - order.side)
    if best is not None and (best.price <= price if order.is_buy else best.price >= price):
        if order.is_post_only:
            return Reason.POST_ONLY_WOULD_CROSS
        if market.state == MarketState.POST_ONLY:
            return Reason.MARKET_POST_ONLY
    hold = hold_of(order, market, price, leaves)
    if hold > order.hold + venue.ledger.available(order.account, held_asset(order, market)):
        return Reason.INSUFFICIENT_FUNDS

    book.remove(order)
    events.unbooked(order)
    order.price, order.quantity, order.leaves = price, quantity, leaves
    order.priority = venue.sequence
    venue.journal.orders[order.order_id] = order
    venue.ledger.set_hold(order, market, hold)
    events.amended(order)
    match(venue, order, events)
    if order.leaves == 0:
        _forget(venue, order)
    else:
        book.add(order)
        events.rested(order)
    return Reason.NONE


def _unbook_and_end(venue: Venue, order: Order, reason: Reason, events: Events) -> None:
    venue.books[order.market].remove(order)
    _end(venue, order, reason, events, booked=True)


def _end(venue: Venue, order: Order, reason: Reason, events: Events, *, booked: bool = False) -> None:
    """Cancel what is left and release what is still held for it."""
    canceled = order.leaves
    order.leaves = 0
    order.canceled += canceled
    venue.journal.orders[order.order_id] = order
    venue.ledger.set_hold(order, venue.markets[order.market], 0)
    events.canceled(order, reason, canceled, booked=booked)
    _forget(venue, order)


def _forget(venue: Venue, order: Order) -> None:
    if order.may_rest:
        venue.orders.remove(order)
