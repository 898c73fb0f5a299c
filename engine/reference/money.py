"""DEPOSIT and WITHDRAW: money enters and leaves, once for a transaction id."""

from engine.reference.events import Events
from engine.reference.records import Command, Transaction
from engine.reference.venue import Venue
from engine.types import INT64_MAX, TRANSACTIONS_MAX, Reason, VenueState


def deposit(venue: Venue, command: Command, events: Events) -> Reason:
    first, reason = _known_or_refused(venue, command)
    if first is not None:
        events.duplicate(command, first.sequence)
        return Reason.NONE
    if reason:
        return reason
    if venue.ledger.assets[command.asset].net_deposits + command.quantity > INT64_MAX:
        return Reason.BALANCE_OVERFLOW
    venue.ledger.deposit(command.account, command.asset, command.quantity)
    _keep(venue, command)
    events.deposited(command.account, command.asset, command.quantity)
    return Reason.NONE


def withdraw(venue: Venue, command: Command, events: Events) -> Reason:
    if venue.state == VenueState.HALTED:
        return Reason.VENUE_HALTED
    first, reason = _known_or_refused(venue, command)
    if first is not None:
        events.duplicate(command, first.sequence)
        return Reason.NONE
    if reason:
        return reason
    if command.quantity > venue.ledger.available(command.account, command.asset):
        return Reason.INSUFFICIENT_FUNDS
    venue.ledger.deposit(command.account, command.asset, -command.quantity)
    _keep(venue, command)
    events.withdrawn(command.account, command.asset, command.quantity)
    return Reason.NONE


def _known_or_refused(venue: Venue, command: Command) -> tuple[Transaction | None, Reason]:
    """The transaction that already used the id, or what is wrong with the command."""
    if command.asset not in venue.ledger.assets:
        return None, Reason.UNKNOWN_ASSET
    if command.client_id == 0:
        return None, Reason.INVALID_IDENTIFIER
    first = venue.transactions.get(command.client_id)
    if first is not None:
        return first, Reason.NONE
    if command.quantity < 1:
        return None, Reason.INVALID_QUANTITY
    if len(venue.transactions) >= TRANSACTIONS_MAX:
        return None, Reason.LIMIT_REACHED
    return None, Reason.NONE


def _keep(venue: Venue, command: Command) -> None:
    venue.transactions[command.client_id] = Transaction(
        transaction_id=command.client_id,
        sequence=venue.sequence,
        quantity=command.quantity,
        account=command.account,
        asset=command.asset,
        type=command.type,
    )
