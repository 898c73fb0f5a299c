"""Channels of the stream: who listens, and the dense sequence of each.

A channel is a name and a key: ``("book", market)``, ``("trades", market)``,
``("orders" | "fills" | "balances", account)``.  It lives from its first
subscriber to its last, and its `instance` is that life: a subscriber that comes
back and finds another instance has missed messages, however the numbers look.
Within an instance the sequence counts what was published; where events were
missed a number is left out.  An epoch change, or a gap in the events, is a
message of its own, after which snapshots follow.

Keys have sessions: the connections that would have to end with the key.
"""

import secrets
from collections.abc import Iterable
from typing import Any, Protocol

import orjson

CHANNELS = ("orders", "fills", "balances", "book", "trades")
MARKET_CHANNELS = ("book", "trades")


class Subscriber(Protocol):
    """Takes encoded messages; must not block."""

    def push(self, message: bytes) -> None:
        """Queue one message, or close oneself when too slow."""

    def missed(self) -> None:
        """Events were missed: send again what has a snapshot."""


class Session(Protocol):
    """A connection that was opened with a key."""

    def check_key(self) -> None:
        """End oneself if the key is not valid any more."""


class Channel:
    """One channel's subscribers and sequence."""

    __slots__ = ("head", "instance", "key", "name", "sequence", "subscribers")

    def __init__(self, name: str, key: int, head: dict[str, Any]) -> None:
        self.name = name
        self.key = key
        self.head = head
        self.instance = secrets.token_hex(8)
        self.sequence = 0
        self.subscribers: set[Subscriber] = set()

    def encode(self, kind: str, body: dict[str, Any]) -> bytes:
        """A message that carries the sequence as it stands."""
        return orjson.dumps(
            {**body, "channel": self.name, **self.head, "type": kind, "sequence": self.sequence}
        )

    def publish(self, kind: str, body: dict[str, Any]) -> None:
        """The next message, to all."""
        self.sequence += 1
        message = self.encode(kind, body)
        for subscriber in tuple(self.subscribers):
            subscriber.push(message)

    def skip(self) -> None:
        """Leave out a number: something was not told."""
        self.sequence += 1


class Hub:
    """All channels that somebody listens to, and the sessions of each key."""

    def __init__(self) -> None:
        self._channels: dict[tuple[str, int], Channel] = {}
        self._sessions: dict[bytes, set[Session]] = {}

    def listening(self, name: str, key: int) -> Channel | None:
        """The channel, when somebody listens; one dictionary look-up."""
        return self._channels.get((name, key))

    def subscribe(self, name: str, key: int, head: dict[str, Any], subscriber: Subscriber) -> Channel:
        """Add a subscriber; with the first one the channel begins."""
        channel = self._channels.get((name, key))
        if channel is None:
            channel = self._channels[(name, key)] = Channel(name, key, head)
        channel.subscribers.add(subscriber)
        return channel

    def unsubscribe(self, name: str, key: int, subscriber: Subscriber) -> None:
        """Remove a subscriber from one channel, which ends with the last."""
        channel = self._channels.get((name, key))
        if channel is not None:
            channel.subscribers.discard(subscriber)
            if not channel.subscribers:
                del self._channels[(name, key)]

    def leave(self, subscriber: Subscriber) -> None:
        """Remove a subscriber from all channels."""
        for name, key in tuple(self._channels):
            self.unsubscribe(name, key, subscriber)

    def active(self, name: str) -> list[Channel]:
        """Channels of this name."""
        return [channel for (kind, _), channel in self._channels.items() if kind == name]

    def announce_epoch(self, epoch: int) -> None:
        """Tell all subscribers that another life of the engine began."""
        self._tell({"type": "epoch", "epoch": epoch})

    def announce_gap(self, epoch: int, sequence: int) -> None:
        """Tell all subscribers that events up to `sequence` were missed; no number follows the last."""
        for channel in self._channels.values():
            channel.skip()
        self._tell({"type": "gap", "epoch": epoch, "engine_sequence": sequence})
        for subscriber in self._subscribers():
            subscriber.missed()

    def _tell(self, body: dict[str, Any]) -> None:
        message = orjson.dumps(body)
        for subscriber in self._subscribers():
            subscriber.push(message)

    def _subscribers(self) -> set[Subscriber]:
        return {subscriber for channel in self._channels.values() for subscriber in channel.subscribers}

    # Keys.

    def open_session(self, digest: bytes, session: Session) -> None:
        """A connection uses a key."""
        self._sessions.setdefault(digest, set()).add(session)

    def close_session(self, digest: bytes, session: Session) -> None:
        """It does not any more."""
        sessions = self._sessions.get(digest)
        if sessions is not None:
            sessions.discard(session)
            if not sessions:
                del self._sessions[digest]

    def check_keys(self, digests: Iterable[bytes] | None = None) -> None:
        """Have the sessions of these keys, or of all, look whether their key still holds."""
        for digest in tuple(self._sessions if digests is None else digests):
            for session in tuple(self._sessions.get(digest, ())):
                session.check_key()
