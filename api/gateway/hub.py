"""Channels of the stream: who listens, and the dense sequence of each.

A channel is a name and a key: ``("book", market)``, ``("trades", market)``,
``("orders" | "fills" | "balances", account)``.  Its sequence counts what was
published since the channel was first asked for in this gateway; a subscriber is
told the number it starts from, so that a gap shows.  An epoch change, or a gap
in the events, is a message of its own, after which snapshots follow.
"""

from typing import Any, Protocol

import orjson

CHANNELS = ("orders", "fills", "balances", "book", "trades")
MARKET_CHANNELS = ("book", "trades")


class Subscriber(Protocol):
    """Takes encoded messages; must not block."""

    def push(self, message: bytes) -> None:
        """Queue one message, or close oneself when too slow."""


class Channel:
    """One channel's subscribers and sequence."""

    __slots__ = ("head", "key", "name", "sequence", "subscribers")

    def __init__(self, name: str, key: int, head: dict[str, Any]) -> None:
        self.name = name
        self.key = key
        self.head = head
        self.sequence = 0
        self.subscribers: set[Subscriber] = set()

    def encode(self, kind: str, body: dict[str, Any]) -> bytes:
        """A message that carries the sequence as it stands."""
        return orjson.dumps(
            {"channel": self.name, **self.head, "type": kind, "sequence": self.sequence, **body}
        )

    def publish(self, kind: str, body: dict[str, Any]) -> None:
        """The next message, to all."""
        self.sequence += 1
        message = self.encode(kind, body)
        for subscriber in tuple(self.subscribers):
            subscriber.push(message)


class Hub:
    """All channels; a channel without subscribers costs one dictionary look-up."""

    def __init__(self) -> None:
        self._channels: dict[tuple[str, int], Channel] = {}

    def listening(self, name: str, key: int) -> Channel | None:
        """The channel, when somebody listens."""
        channel = self._channels.get((name, key))
        return channel if channel is not None and channel.subscribers else None

    def subscribe(self, name: str, key: int, head: dict[str, Any], subscriber: Subscriber) -> Channel:
        """Add a subscriber; the channel is made when it is the first ever."""
        channel = self._channels.get((name, key))
        if channel is None:
            channel = self._channels[(name, key)] = Channel(name, key, head)
        channel.subscribers.add(subscriber)
        return channel

    def unsubscribe(self, name: str, key: int, subscriber: Subscriber) -> None:
        """Remove a subscriber from one channel."""
        channel = self._channels.get((name, key))
        if channel is not None:
            channel.subscribers.discard(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Remove a subscriber from all channels."""
        for channel in self._channels.values():
            channel.subscribers.discard(subscriber)

    def active(self, name: str) -> list[Channel]:
        """Channels of this name that somebody listens to."""
        return [c for (kind, _), c in self._channels.items() if kind == name and c.subscribers]

    def announce_epoch(self, epoch: int) -> None:
        """Tell all subscribers that another life of the engine began."""
        message = orjson.dumps({"type": "epoch", "epoch": epoch})
        for subscriber in {s for c in self._channels.values() for s in c.subscribers}:
            subscriber.push(message)
