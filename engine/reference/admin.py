"""The commands of those who run the venue: what is open, who may enter, which state."""

from collections.abc import Sized

from engine.reference.events import Events
from engine.reference.records import Account, ApiKey, Asset, Command, Market
from engine.reference.venue import Venue
from engine.types import (
    ACCOUNTS_MAX,
    ASSETS_MAX,
    KEYS_MAX,
    MARKETS_MAX,
    PPM,
    AccountState,
    MarketState,
    Reason,
    VenueState,
)

_VENUE_STATES = (VenueState.OPEN, VenueState.CANCEL_ONLY, VenueState.HALTED)


def open_asset(venue: Venue, command: Command, events: Events) -> Reason:
    assets = venue.ledger.assets
    reason = _refuse_id(command.asset, len(assets), ASSETS_MAX)
    if reason:
        return reason
    asset = len(assets) + 1
    assets[asset] = Asset(asset)
    events.asset_opened(asset)
    return Reason.NONE


def open_market(venue: Venue, command: Command, events: Events) -> Reason:
    base, quote = command.asset, command.slot
    tick_atoms, lot_atoms = command.price, command.quantity
    maker, taker = command.trigger_price, command.expire_time_ns
    reason = _refuse_id(command.market, len(venue.markets), MARKETS_MAX)
    if reason:
        return reason
    if base not in venue.ledger.assets or quote not in venue.ledger.assets:
        return Reason.UNKNOWN_ASSET
    if base == quote:
        return Reason.INVALID_IDENTIFIER
    if tick_atoms < 1 or lot_atoms < 1:
        return Reason.INVALID_AMOUNT
    if not (0 <= taker <= PPM and -taker <= maker <= PPM):
        return Reason.INVALID_FEE
    market = Market(len(venue.markets) + 1, base, quote, tick_atoms, lot_atoms, maker, taker)
    venue.open_market(market)
    events.market_opened(market)
    return Reason.NONE


def open_account(venue: Venue, command: Command, events: Events) -> Reason:
    customers = len(venue.accounts) - 1
    reason = _refuse_id(command.account, customers, ACCOUNTS_MAX)
    if reason:
        return reason
    account = customers + 1
    venue.accounts[account] = Account(account)
    events.account_opened(account)
    return Reason.NONE


def add_key(venue: Venue, command: Command, events: Events) -> Reason:
    words = _hash(command)
    if not any(words):
        return Reason.INVALID_IDENTIFIER
    if words in venue.keys:
        return Reason.ALREADY_EXISTS
    if command.account != 0 and command.account not in venue.accounts:
        return Reason.UNKNOWN_ACCOUNT
    if command.asset == 0 or command.expire_time_ns < 0:
        return Reason.INVALID_AMOUNT
    if _is_full(venue.keys, KEYS_MAX):
        return Reason.LIMIT_REACHED
    key = ApiKey(words, command.account, command.asset, command.expire_time_ns, venue.sequence)
    venue.keys[words] = key
    events.key_added(key)
    return Reason.NONE


def revoke_key(venue: Venue, command: Command, events: Events) -> Reason:
    key = venue.keys.get(_hash(command))
    if key is None:
        return Reason.UNKNOWN_KEY
    if not key.revoked:
        key.revoked = venue.sequence
    events.key_revoked(key)
    return Reason.NONE


def set_market_state(venue: Venue, command: Command, events: Events) -> Reason:
    market = venue.markets.get(command.market)
    if market is None:
        return Reason.UNKNOWN_MARKET
    if command.quantity not in list(MarketState):
        return Reason.INVALID_STATE
    market.state = command.quantity
    events.market_state(market.market, market.state)
    return Reason.NONE


def set_venue_state(venue: Venue, command: Command, events: Events) -> Reason:
    if command.quantity not in _VENUE_STATES:
        return Reason.INVALID_STATE
    _enter(venue, command.quantity, events)
    return Reason.NONE


def set_account_state(venue: Venue, command: Command, events: Events) -> Reason:
    if not venue.is_customer(command.account):
        return Reason.UNKNOWN_ACCOUNT
    if command.quantity not in list(AccountState):
        return Reason.INVALID_STATE
    venue.accounts[command.account].state = command.quantity
    events.account_state(command.account, command.quantity)
    return Reason.NONE


def start(venue: Venue, command: Command, events: Events) -> Reason:
    """Another process takes over, with a higher epoch."""
    if command.quantity <= venue.epoch:
        return Reason.INVALID_STATE
    venue.epoch = command.quantity
    stays = venue.state in (VenueState.HALTED, VenueState.CANCEL_ONLY)
    _enter(venue, venue.state if stays else VenueState.DRAINING, events)
    return Reason.NONE


def drained(venue: Venue, command: Command, events: Events) -> Reason:
    if venue.state != VenueState.DRAINING:
        return Reason.INVALID_STATE
    _enter(venue, VenueState.OPEN, events)
    return Reason.NONE


def tick(venue: Venue, command: Command, events: Events) -> Reason:
    """Nothing but the time that it carries."""
    return Reason.NONE


def _enter(venue: Venue, state: int, events: Events) -> None:
    venue.state = state
    events.venue_state(state, venue.epoch)


def _refuse_id(wanted: int, last: int, bound: int) -> Reason:
    """Ids are dense from 1; 0 asks for the next."""
    if 0 < wanted <= last:
        return Reason.ALREADY_EXISTS
    if wanted > last + 1:
        return Reason.INVALID_IDENTIFIER
    if last >= bound:
        return Reason.LIMIT_REACHED
    return Reason.NONE


def _is_full(things: Sized, bound: int) -> bool:
    return len(things) >= bound


def _hash(command: Command) -> tuple[int, int, int, int]:
    return command.client_id_lo, command.client_id_hi, command.key_lo, command.key_hi
