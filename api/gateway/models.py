"""The JSON of the public surface: what comes in, what goes out.

`msgspec` structs decode and check shape and type; the meaning (ticks, lots,
symbols) is judged in `validation`.  The OpenAPI document is made from the same
structs.  Decimal numbers are strings throughout.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from api.gateway.errors import Problem

BODY_BYTES_MAX = 64 * 1024
BATCH_MAX = 100
IDENTIFIER_CHARACTERS_MAX = 64
NUMBER_CHARACTERS_MAX = 64
NAME_CHARACTERS_MAX = 64
PAGE_DEFAULT = 100
PAGE_MAX = 1000

Identifier = Annotated[str, Meta(min_length=1, max_length=IDENTIFIER_CHARACTERS_MAX)]
Number = Annotated[str, Meta(max_length=NUMBER_CHARACTERS_MAX, examples=["1.0"])]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
Symbol = Annotated[str, Meta(min_length=1, max_length=32, examples=["BTC/USDT"])]

SideText = Literal["buy", "sell"]
TypeText = Literal["limit", "market"]
TimeInForceText = Literal["gtc", "ioc", "fok"]
ScopeText = Literal["read", "trade", "admin"]


# Requests.


class NewOrder(Struct, forbid_unknown_fields=True):
    """A new order."""

    idempotency_key: Identifier
    symbol: Symbol
    side: SideText
    quantity: Number
    type: TypeText = "limit"
    price: Number | None = None
    time_in_force: TimeInForceText | Literal["GTC", "IOC", "FOK"] = "gtc"
    client_order_id: Identifier | None = None
    post_only: bool = False


class BatchItem(Struct, forbid_unknown_fields=True):
    """One order of a batch; its idempotency key is the batch's and its index."""

    symbol: Symbol
    side: SideText
    quantity: Number
    type: TypeText = "limit"
    price: Number | None = None
    time_in_force: TimeInForceText | Literal["GTC", "IOC", "FOK"] = "gtc"
    client_order_id: Identifier | None = None
    post_only: bool = False


class NewBatch(Struct, forbid_unknown_fields=True):
    """Up to 100 orders; not atomic."""

    idempotency_key: Identifier
    orders: Annotated[list[BatchItem], Meta(min_length=1, max_length=BATCH_MAX)]


class Amend(Struct, forbid_unknown_fields=True):
    """New price, new OrderQty, or both."""

    price: Number | None = None
    quantity: Number | None = None
    idempotency_key: Identifier | None = None


class NewAsset(Struct, forbid_unknown_fields=True):
    """An asset."""

    symbol: Annotated[str, Meta(min_length=1, max_length=15)]
    decimals: Annotated[int, Meta(ge=0, le=18)]


class NewMarket(Struct, forbid_unknown_fields=True):
    """A market: base/quote, what a tick and a lot are, fees in parts per million."""

    symbol: Symbol
    base: Name
    quote: Name
    tick_size: Number
    lot_size: Number
    maker_fee_ppm: int = 0
    taker_fee_ppm: int = 0


class NewAccount(Struct, forbid_unknown_fields=True):
    """An account."""

    name: Name


class NewKey(Struct, forbid_unknown_fields=True):
    """An API key; `expires_in_s` 0 means never."""

    scopes: Annotated[list[ScopeText], Meta(min_length=1, max_length=3)]
    account: int | None = None
    name: Name = "key"
    expires_in_s: Annotated[int, Meta(ge=0, le=10 * 366 * 86400)] = 0


class Transfer(Struct, forbid_unknown_fields=True):
    """A deposit or a withdrawal."""

    transaction_id: Identifier
    account: int
    asset: Name
    amount: Number
    idempotency_key: Identifier | None = None


class StateChange(Struct, forbid_unknown_fields=True):
    """A new state, and why."""

    state: Literal["OPEN", "POST_ONLY", "CANCEL_ONLY", "HALTED"]
    reason: Annotated[str, Meta(min_length=1, max_length=500)]


class Resume(Struct, forbid_unknown_fields=True):
    """Why the venue opens again."""

    reason: Annotated[str, Meta(min_length=1, max_length=500)]


# Answers, for the OpenAPI document and the client.


class Fill(Struct):
    """A fill of one order."""

    trade_id: str
    price: str
    quantity: str
    fee: str
    liquidity: Literal["maker", "taker"]
    order_id: str | UnsetType = UNSET
    symbol: str | UnsetType = UNSET
    side: SideText | UnsetType = UNSET
    sequence: int | UnsetType = UNSET
    time: str | UnsetType = UNSET


class Order(Struct):
    """An order as it stands."""

    order_id: str
    client_order_id: str | None
    symbol: str
    side: SideText
    type: TypeText | None
    time_in_force: str | None
    status: Literal[
        "PENDING_SUBMISSION", "NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED", "EXPIRED", "REJECTED"
    ]
    quantity: str
    price: str | None
    filled_quantity: str
    remaining_quantity: str
    average_price: str | None
    fills: list[Fill]
    reason: str | None
    created_at: str
    updated_at: str
    sequence: int | None
    post_only: bool = False


class OrderPage(Struct):
    """A page of orders."""

    orders: list[Order]
    next_cursor: str | None


class FillPage(Struct):
    """A page of fills."""

    fills: list[Fill]
    next_cursor: str | None


class ProblemDocument(Struct):
    """RFC 9457."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | UnsetType = UNSET
    limit: str | UnsetType = UNSET
    sequence: int | UnsetType = UNSET


class BatchAnswer(Struct):
    """One entry an item, in order: its HTTP status and the order or the problem."""

    results: list[dict[str, Any]]


class MassCancelAnswer(Struct):
    """Which orders were cancelled, and how many could not be."""

    canceled: list[str]
    failed: list[str]


class Balance(Struct):
    """What an account has of one asset."""

    asset: str
    available: str
    held: str


class Balances(Struct):
    """All balances, and as of which sequence and time."""

    balances: list[Balance]
    sequence: int
    as_of: str


class Market(Struct):
    """A market."""

    symbol: str
    base: str
    quote: str
    tick_size: str
    lot_size: str
    maker_fee_ppm: int
    taker_fee_ppm: int
    state: str
    last_price: str | None


class Markets(Struct):
    """All markets."""

    markets: list[Market]


class Book(Struct):
    """Levels as [price, quantity, orders], best first."""

    symbol: str
    bids: list[tuple[str, str, int]]
    asks: list[tuple[str, str, int]]
    sequence: int
    epoch: int
    channel_sequence: int
    checksum: int
    as_of: str


class Trade(Struct):
    """A trade, as everybody sees it."""

    trade_id: str
    price: str
    quantity: str
    side: SideText
    time: str
    sequence: int


class Trades(Struct):
    """The last trades, newest first."""

    symbol: str
    trades: list[Trade]
    as_of: str


class Limits(Struct):
    """The caller's account, and the bounds that it meets."""

    account: int
    body_bytes_max: int
    batch_orders_max: int
    identifier_characters_max: int
    page_max: int
    requests_in_flight_max: int
    idempotency_keys_max: int
    stream_requests_in_flight_max: int


class Health(Struct):
    """GREEN, YELLOW or RED, and why."""

    status: Literal["GREEN", "YELLOW", "RED"]
    venue_state: str
    epoch: int
    sequence: int
    components: dict[str, Any]


class AssetAnswer(Struct):
    """An asset."""

    asset: int
    symbol: str
    decimals: int


class AccountAnswer(Struct):
    """An account."""

    account: int
    name: str
    state: str


class KeyAnswer(Struct):
    """A key; the token is shown this once."""

    key_id: str
    token: str
    account: int | None
    scopes: list[str]
    expires_at: str | None


class TransferAnswer(Struct):
    """A booked deposit or withdrawal."""

    transaction_id: str
    account: int
    asset: str
    amount: str
    sequence: int


class StateAnswer(Struct):
    """The state as it is now."""

    state: str
    sequence: int


class CheckpointAnswer(Struct):
    """A published checkpoint."""

    sequence: int


_CHOICES = {
    "side": "buy, sell",
    "type": "limit, market",
    "time_in_force": "gtc, ioc, fok",
    "state": "OPEN, POST_ONLY, CANCEL_ONLY, HALTED",
}
_PATH_MARK = " - at `$"
_UNKNOWN_FIELD = "Object contains unknown field `"
ECHO_CHARACTERS_MAX = 64
"""Of what a client sent, at most this much comes back in a message."""
_MESSAGE_CHARACTERS_MAX = 200


def _locate(text: str) -> tuple[str, str | None]:
    """Message and field of msgspec's error text (``... - at `$.orders[0].price```)."""
    message, mark, path = text.rpartition(_PATH_MARK)
    if not mark:
        return text[:_MESSAGE_CHARACTERS_MAX], None
    return message, path.rstrip("`").removeprefix(".")[:_MESSAGE_CHARACTERS_MAX] or None


def _classify(error: msgspec.ValidationError) -> Problem:
    message, field = _locate(str(error))
    if message.startswith(_UNKNOWN_FIELD):
        name = message[len(_UNKNOWN_FIELD) :].removesuffix("`")[:ECHO_CHARACTERS_MAX]
        return Problem("unknown_field", f"{name!r} is not a field of this request.", field=name)
    if message.startswith("Object missing required field"):
        name = message.split("`")[1]
        name = f"{field}.{name}" if field else name
        return Problem("missing_field", f"{name!r} is required.", field=name)
    message = message[:_MESSAGE_CHARACTERS_MAX]
    shown = field or "body"
    if "of length <=" in message:
        limit = message.rsplit(" ", 1)[1]
        code = "batch_too_large" if message.startswith("Expected `array`") else "too_long"
        return Problem(
            code, f"{shown!r} may have at most {limit} elements or characters.", field=field, limit=limit
        )
    if "of length >=" in message:
        return Problem("invalid_value", f"{shown!r} may not be empty.", field=field, limit="1")
    if "Invalid enum value" in message:
        choices = _CHOICES.get(shown.rpartition(".")[2])
        allowed = "" if choices is None else f"; one of {choices}"
        return Problem("invalid_value", f"{shown!r}: {message}{allowed}.", field=field, limit=choices)
    if "<=" in message or ">=" in message:
        return Problem(
            "invalid_value", f"{shown!r}: {message}.", field=field, limit=message.rsplit(" ", 1)[1]
        )
    return Problem("wrong_type", f"{shown!r}: {message}.", field=field)


_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The last is JSON that is nested deeper than anybody reads."""

T = TypeVar("T")


class RequestDecoder(Generic[T]):
    """Decodes one type of request, and fails with a `Problem` that names the field."""

    def __init__(self, kind: type[T]) -> None:
        self._decode = msgspec.json.Decoder(kind).decode

    def __call__(self, body: bytes) -> T:
        """The request.

        Raises
        ------
        Problem
            malformed_json, or what is wrong with which field.
        """
        try:
            return self._decode(body)
        except msgspec.ValidationError as error:
            # The decoder stops at the first field that is wrong: whether the rest is JSON is looked at now.
            _require_json(body)
            raise _classify(error) from error
        except _NO_JSON as error:
            raise _malformed(error) from error


def _malformed(error: Exception) -> Problem:
    return Problem("malformed_json", f"The body is not JSON: {error}.")


def _require_json(body: bytes) -> None:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except _NO_JSON as error:
        raise _malformed(error) from error


def convert_request(kind: type[T], value: Any) -> T:
    """The same for a value that is already decoded (a message of the stream)."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _classify(error) from error


decode_order = RequestDecoder(NewOrder)
decode_batch = RequestDecoder(NewBatch)
decode_amend = RequestDecoder(Amend)
