"""Who asks: bearer keys, without the database.

The engine sends the hashes of all keys in WELCOME and each new or revoked one
with its event, so a gateway authenticates also while engine and database are
down, with what it last heard.  Tokens are never kept: the header is hashed at
once.  The look-up is by SHA-256 of a 256-bit random token, which leaks nothing
useful through its timing; the comparison that decides is constant-time.
"""

import hmac
from dataclasses import dataclass
from typing import Any

from api.gateway.clock import wall_ns
from api.gateway.errors import Problem
from api.identity import token_hash

READ = 1
TRADE = 2
ADMIN = 4
SCOPES = {"read": READ, "trade": TRADE, "admin": ADMIN}

TOKEN_CHARACTERS_MAX = 128


@dataclass(slots=True)
class Key:
    """A key as the log knows it; `account` 0 is nobody's."""

    digest: bytes
    account: int
    scopes: int
    expire_time_ns: int
    revoked: bool


class Keys:
    """Mirror of all API keys."""

    def __init__(self) -> None:
        self._keys: dict[bytes, Key] = {}
        self.loaded = False
        """Whether the engine was ever heard: before, a key that is not here may be a good one."""

    def __len__(self) -> int:
        return len(self._keys)

    def load(self, rows: list[list[Any]]) -> None:
        """Replace all by WELCOME's ``[hash, account, scopes, expire_time_ns, revoked]``."""
        self.loaded = True
        self._keys = {
            digest: Key(digest, int(account), int(scopes), int(expire), bool(revoked))
            for digest, account, scopes, expire, revoked in (
                (bytes.fromhex(row[0]), row[1], row[2], row[3], row[4]) for row in rows
            )
        }

    def add(self, key: Key) -> None:
        """A key was added."""
        self._keys[key.digest] = key

    def revoke(self, digest: bytes) -> None:
        """A key was revoked: at once."""
        key = self._keys.get(digest)
        if key is not None:
            key.revoked = True

    def get(self, digest: bytes) -> Key | None:
        """The key with this hash."""
        return self._keys.get(digest)

    def authenticate(self, authorization: bytes | None, scope: int) -> Key:
        """The key of an ``Authorization`` header.

        Raises
        ------
        Problem
            missing_key, invalid_key, forbidden when it lacks `scope`; unavailable
            while nobody can tell.
        """
        if authorization is None:
            raise Problem("missing_key", "Send 'Authorization: Bearer <key>'.", field="Authorization")
        kind, _, token = authorization.partition(b" ")
        token = token.strip()
        if kind.lower() != b"bearer" or not 0 < len(token) <= TOKEN_CHARACTERS_MAX:
            raise Problem("invalid_key", "The header must read 'Bearer <key>'.", field="Authorization")
        return self.authenticate_token(token.decode("latin-1"), scope)

    def authenticate_token(self, token: str, scope: int) -> Key:
        """The key of a token; fails as `authenticate` does."""
        digest = token_hash(token)
        key = self._keys.get(digest)
        if not self.loaded:
            raise Problem("unavailable", "The gateway has not heard from the engine yet; try again.")
        if key is not None and not hmac.compare_digest(key.digest, digest):
            key = None
        return self.check(key, scope)

    @staticmethod
    def check(key: Key | None, scope: int) -> Key:
        """The key itself when it is valid now and has `scope`; fails as `authenticate` does."""
        if key is None:
            raise Problem("invalid_key", "This API key is not known.", field="Authorization")
        if key.revoked:
            raise Problem("invalid_key", "This API key was revoked.", field="Authorization")
        if key.expire_time_ns and wall_ns() >= key.expire_time_ns:
            raise Problem("invalid_key", "This API key has expired.", field="Authorization")
        if not key.scopes & scope:
            need = next(name for name, bit in SCOPES.items() if bit == scope)
            raise Problem(
                "forbidden", f"This needs the scope {need!r}.", field="Authorization", limit=f"scope {need}"
            )
        return key
