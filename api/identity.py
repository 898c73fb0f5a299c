"""Digests and names: how text becomes the fixed-size words of a COMMAND.

::

    client_order_id, idempotency_key, transaction_id   BLAKE2b-128 → lo, hi
    body of a request                                   BLAKE2b-64
    API token                                           SHA-256 → four words

All words are little endian.  The texts themselves travel beside the record in
the log frame, so a digest is never the only trace of what a client said.
"""

import hashlib
import secrets
import struct

_PAIR = struct.Struct("<QQ")
_FOUR = struct.Struct("<QQQQ")
_BODY = struct.Struct("<BBBBHIQIqqQQ")

TOKEN_PREFIX = "hf_"
TOKEN_BYTES = 32
_MASK = (1 << 64) - 1


def digest_pair(text: str) -> tuple[int, int]:
    """BLAKE2b-128 of a text as (lo, hi).

    >>> digest_pair("req_abc123") == digest_pair("req_abc123")
    True
    """
    return _PAIR.unpack(hashlib.blake2b(text.encode(), digest_size=16).digest())


def body_digest(
    kind: int,
    *,
    side: int = 0,
    order_type: int = 0,
    time_in_force: int = 0,
    flags: int = 0,
    market: int = 0,
    order_id: int = 0,
    asset: int = 0,
    price: int = 0,
    quantity: int = 0,
    client_id: tuple[int, int] = (0, 0),
) -> int:
    """BLAKE2b-64 over the fields that make two requests the same request.

    The slot of an order is not among them: its id says which order it is.
    """
    packed = _BODY.pack(
        kind, side, order_type, time_in_force, flags, market, order_id, asset, price, quantity, *client_id
    )
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


def new_token() -> str:
    """A new API token: 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def token_hash(token: str) -> bytes:
    """SHA-256 of a token: all that the venue keeps of it."""
    return hashlib.sha256(token.encode()).digest()


def hash_words(digest: bytes) -> tuple[int, int, int, int]:
    """The four words of a key's hash, as ADD_KEY carries them."""
    return _FOUR.unpack(digest)


def words_hash(words: tuple[int, int, int, int]) -> bytes:
    """The hash back from its words; negative ones are bit patterns of an EVENT's int64 fields."""
    return _FOUR.pack(*(word & _MASK for word in words))
