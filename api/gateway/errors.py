"""What can go wrong, as a client sees it: RFC 9457 problems with stable codes.

::

    GatewayError
    ├── Problem            an answer that is not a success; carries its code
    └── ClientLeft         the client is gone: nobody waits for an answer (`http`)

Every code stands in `CATALOGUE` once, with its HTTP status and title.  The
core's reasons map to codes in `REASON_CODES`, in full: a test compares the
table with the enumeration.

A refusal that the core has logged is the stored answer of its idempotency key
(SPEC K1), so 503 and Retry-After would be wrong of it: the same key gets the same
answer after the market has opened again.  `rejected` makes it 409, try again
under a new key; but for the few that the core does not store (`KEY_STAYS_FREE`).
"""

from typing import Any, NamedTuple

import orjson

from engine.types import Reason

PROBLEM_TYPE = "https://holdfast.invalid/problems/"
"""Prefix of `type`: an identifier, not an address."""

RETRY_AFTER_S = 1


class Entry(NamedTuple):
    """One line of the catalogue."""

    status: int
    title: str
    retry: bool = False


CATALOGUE: dict[str, Entry] = {
    # The connection.
    "malformed_request": Entry(400, "This is no HTTP request"),
    "request_timeout": Entry(408, "The request was not complete in time"),
    "headers_too_large": Entry(431, "URL and headers are too large"),
    # The request itself.
    "malformed_json": Entry(400, "The body is not JSON"),
    "unknown_field": Entry(422, "A field that this request does not have"),
    "missing_field": Entry(422, "A required field is missing"),
    "wrong_type": Entry(422, "A field has the wrong type"),
    "invalid_value": Entry(422, "A field has a value that is not allowed"),
    "invalid_parameter": Entry(422, "A query or path parameter is not allowed"),
    "too_long": Entry(422, "A text is too long"),
    "body_too_large": Entry(413, "The body is too large"),
    "batch_too_large": Entry(422, "The batch has too many items"),
    "route_not_found": Entry(404, "No such route"),
    "method_not_allowed": Entry(405, "The route does not have this method"),
    # Prices, quantities, amounts.
    "malformed_decimal": Entry(422, "Not a decimal number"),
    "negative": Entry(422, "The number is negative"),
    "zero": Entry(422, "The number is zero"),
    "too_precise": Entry(422, "The number has too many decimals"),
    "wrong_tick": Entry(422, "The price is not a multiple of the tick size"),
    "wrong_lot": Entry(422, "The quantity is not a multiple of the lot size"),
    "overflow": Entry(422, "The number is too large"),
    # Who asks.
    "missing_key": Entry(401, "No API key was given"),
    "invalid_key": Entry(401, "The API key is unknown, revoked or expired"),
    "forbidden": Entry(403, "The API key does not have the scope"),
    # What is named.
    "unknown_symbol": Entry(422, "No such market"),
    "market_not_found": Entry(404, "No such market"),
    "unknown_asset": Entry(422, "No such asset"),
    "unknown_account": Entry(422, "No such account"),
    "unknown_key": Entry(404, "No such API key"),
    "order_not_found": Entry(404, "No such order"),
    "never_seen": Entry(404, "This key was never seen"),
    "already_exists": Entry(409, "It exists already, and differs"),
    # The core's business rejections.
    "unknown_command": Entry(422, "The engine does not know this command"),
    "invalid_side": Entry(422, "No such side"),
    "invalid_order_type": Entry(422, "No such order type"),
    "invalid_time_in_force": Entry(422, "No such time in force"),
    "invalid_flags": Entry(422, "These options exclude each other"),
    "invalid_price": Entry(422, "The price is not allowed"),
    "invalid_quantity": Entry(422, "The quantity is not allowed"),
    "invalid_amount": Entry(422, "The amount is not allowed"),
    "invalid_fee": Entry(422, "The fee is not allowed"),
    "invalid_state": Entry(422, "No such state, or not from here"),
    "invalid_identifier": Entry(422, "The identifier is not allowed"),
    "duplicate_client_order_id": Entry(409, "A live order has this client_order_id"),
    "idempotency_conflict": Entry(409, "The idempotency key was used with another body"),
    "idempotency_quota": Entry(429, "The account holds too many idempotency keys", retry=True),
    "market_halted": Entry(503, "The market is halted", retry=True),
    "market_cancel_only": Entry(503, "The market accepts cancels only", retry=True),
    "market_post_only": Entry(422, "The market accepts post-only orders only"),
    "account_suspended": Entry(403, "The account is suspended"),
    "not_live": Entry(409, "The order is finished"),
    "post_only_would_cross": Entry(422, "A post-only order would trade"),
    "fok_not_fillable": Entry(422, "The order cannot be filled whole"),
    "ioc_remainder": Entry(422, "The remainder was cancelled"),
    "market_remainder": Entry(422, "The remainder was cancelled"),
    "user_requested": Entry(422, "The order was cancelled by its owner"),
    "amended_away": Entry(422, "The amend left nothing of the order"),
    "insufficient_funds": Entry(422, "The account does not have the funds"),
    "balance_overflow": Entry(422, "The balance would be too large"),
    "limit_reached": Entry(503, "A bound of the venue is reached", retry=True),
    # The venue.
    "venue_halted": Entry(503, "The venue is halted", retry=True),
    "venue_draining": Entry(503, "The venue is taking its queue", retry=True),
    "venue_cancel_only": Entry(503, "The venue accepts cancels only", retry=True),
    "unavailable": Entry(503, "Not possible at the moment", retry=True),
    "overloaded": Entry(503, "Too many requests are in flight", retry=True),
    "stale": Entry(503, "The market data is too old", retry=True),
    "unknown_outcome": Entry(503, "Nobody can tell at the moment", retry=True),
    "outcome_unknown": Entry(504, "The request may or may not have been carried out"),
    "queued_order": Entry(409, "The order is being handed to the engine"),
    "internal": Entry(500, "An internal error"),
}

REASON_CODES: dict[Reason, str] = {
    Reason.NONE: "internal",
    Reason.UNKNOWN_COMMAND: "unknown_command",
    Reason.UNKNOWN_MARKET: "unknown_symbol",
    Reason.UNKNOWN_ACCOUNT: "unknown_account",
    Reason.UNKNOWN_ASSET: "unknown_asset",
    Reason.INVALID_SIDE: "invalid_side",
    Reason.INVALID_ORDER_TYPE: "invalid_order_type",
    Reason.INVALID_TIME_IN_FORCE: "invalid_time_in_force",
    Reason.INVALID_FLAGS: "invalid_flags",
    Reason.INVALID_PRICE: "invalid_price",
    Reason.INVALID_QUANTITY: "invalid_quantity",
    Reason.INVALID_AMOUNT: "invalid_amount",
    Reason.OVERFLOW: "overflow",
    Reason.DUPLICATE_CLIENT_ORDER_ID: "duplicate_client_order_id",
    Reason.ALREADY_EXISTS: "already_exists",
    Reason.INVALID_STATE: "invalid_state",
    Reason.INVALID_FEE: "invalid_fee",
    Reason.INVALID_IDENTIFIER: "invalid_identifier",
    Reason.UNKNOWN_KEY: "unknown_key",
    Reason.VENUE_HALTED: "venue_halted",
    Reason.VENUE_DRAINING: "venue_draining",
    Reason.VENUE_CANCEL_ONLY: "venue_cancel_only",
    Reason.MARKET_HALTED: "market_halted",
    Reason.MARKET_CANCEL_ONLY: "market_cancel_only",
    Reason.MARKET_POST_ONLY: "market_post_only",
    Reason.ACCOUNT_SUSPENDED: "account_suspended",
    Reason.NOT_LIVE: "not_live",
    Reason.NOT_OWNER: "order_not_found",
    Reason.POST_ONLY_WOULD_CROSS: "post_only_would_cross",
    Reason.FOK_NOT_FILLABLE: "fok_not_fillable",
    Reason.IOC_REMAINDER: "ioc_remainder",
    Reason.MARKET_REMAINDER: "market_remainder",
    Reason.USER_REQUESTED: "user_requested",
    Reason.AMENDED_AWAY: "amended_away",
    Reason.INSUFFICIENT_FUNDS: "insufficient_funds",
    Reason.BALANCE_OVERFLOW: "balance_overflow",
    Reason.IDEMPOTENCY_CONFLICT: "idempotency_conflict",
    Reason.IDEMPOTENCY_QUOTA: "idempotency_quota",
    Reason.LIMIT_REACHED: "limit_reached",
}


KEY_STAYS_FREE = frozenset((Reason.VENUE_DRAINING, Reason.IDEMPOTENCY_QUOTA))
"""Refusals that do not use up the key: the same request may be sent again."""


class GatewayError(Exception):
    """Anything that the gateway raises."""


class Problem(GatewayError):
    """A refusal with a stable code.

    Parameters
    ----------
    code : str
        A key of `CATALOGUE`.
    detail : str
        What happened, to what, and what is allowed.
    field : str, optional
        Which field or parameter.
    limit : str, optional
        The limit that it broke.
    sequence : int, optional
        Of the logged rejection, when the core refused.
    stored : bool
        The answer stays the same under its idempotency key: no use in asking again.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        limit: str | None = None,
        sequence: int | None = None,
        stored: bool = False,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.field = field
        self.limit = limit
        self.sequence = sequence
        self.stored = stored

    @property
    def status(self) -> int:
        """HTTP status of the code; 409 when asking again would not help."""
        entry = CATALOGUE[self.code]
        return 409 if self.stored and entry.retry else entry.status

    @property
    def retry(self) -> bool:
        """Whether the answer carries Retry-After."""
        return CATALOGUE[self.code].retry and not self.stored

    def document(self) -> dict[str, Any]:
        """The RFC 9457 members."""
        entry = CATALOGUE[self.code]
        document: dict[str, Any] = {
            "type": PROBLEM_TYPE + self.code,
            "title": entry.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.field is not None:
            document["field"] = self.field
        if self.limit is not None:
            document["limit"] = self.limit
        if self.sequence is not None:
            document["sequence"] = self.sequence
        return document

    def body(self) -> bytes:
        """The document as JSON."""
        return orjson.dumps(self.document())


_DETAILS: dict[str, str] = {
    "insufficient_funds": "The worst-case cost with fees exceeds what the account has available.",
    "post_only_would_cross": "The price crosses the book and post_only was asked for.",
    "duplicate_client_order_id": "Cancel the live order with this client_order_id, or choose another id.",
    "idempotency_conflict": "Send the first body again to get its answer, or use a new idempotency_key.",
    "overflow": "price x quantity, or the quantity itself, exceeds 2^63 - 1 atoms.",
    "order_not_found": "No order of this account has that id.",
    "not_live": "The order is filled, cancelled or expired; it cannot change any more.",
}

_FIELDS: dict[str, str] = {
    "insufficient_funds": "quantity",
    "post_only_would_cross": "price",
    "duplicate_client_order_id": "client_order_id",
    "idempotency_conflict": "idempotency_key",
    "idempotency_quota": "idempotency_key",
    "overflow": "quantity",
    "unknown_symbol": "symbol",
}


def rejected(reason: int, sequence: int, *, field: str | None = None, keyed: bool = True) -> Problem:
    """The problem for a rejection by the core.

    Parameters
    ----------
    reason, sequence : int
        Of the REJECTED event.
    field : str, optional
        Which field it is about, when that is known better than from the reason.
    keyed : bool
        The command had an idempotency key, under which this is now the answer.
    """
    known = Reason(reason)
    code = REASON_CODES[known]
    detail = _DETAILS.get(code, f"{CATALOGUE[code].title} ({known.name}).")
    limit = "9223372036854775807" if code == "overflow" else None
    stored = keyed and known not in KEY_STAYS_FREE
    return Problem(
        code, detail, field=field or _FIELDS.get(code), limit=limit, sequence=sequence, stored=stored
    )
