"""Connections and channels without a venue: what a client that does not read costs."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from api.gateway import stream as streams
from api.gateway.hub import Hub
from api.gateway.keys import Key, Keys
from api.gateway.stream import OUTBOX_BYTES_MAX, serve_stream


class Peer:
    """A connection as uvicorn has it; `takes` says whether the client reads."""

    def __init__(self, *, takes: bool) -> None:
        self.takes = takes
        self.sent: list[dict[str, Any]] = []
        self.transport = self
        self.aborted = False
        self.buffered = 0

    async def send(self, message: Any) -> None:
        if message["type"] != "websocket.accept" and not self.takes:
            await asyncio.Event().wait()
        self.sent.append(dict(message))

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def abort(self) -> None:
        self.aborted = True


def venue() -> Any:
    counter = SimpleNamespace(inc=lambda: None, dec=lambda: None)
    return SimpleNamespace(
        hub=Hub(),
        mirror=SimpleNamespace(keys=Keys(), loaded=True),
        metrics=SimpleNamespace(streams=counter, slow_streams=counter),
        stream_ended=lambda results: None,
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def connected(venue: Any, peer: Peer) -> tuple["asyncio.Task[None]", Any]:
    """A served connection that listens to one channel, and that channel."""
    incoming: asyncio.Queue[Any] = asyncio.Queue()
    incoming.put_nowait({"type": "websocket.connect"})
    scope = {"type": "websocket", "headers": [], "query_string": b"", "path": "/v1/stream"}
    task = asyncio.create_task(serve_stream(venue, scope, incoming.get, peer.send))
    await until(lambda: bool(peer.sent))
    made = [each for each in _streams if each._venue is venue]
    return task, venue.hub.subscribe("trades", 1, {"symbol": "A/B"}, made[-1])


_streams: list[streams.Stream] = []


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the streams that are made."""

    class Seen(streams.Stream):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            _streams.append(self)

    monkeypatch.setattr(streams, "Stream", Seen)
    monkeypatch.setattr(streams, "CLOSE_S", 0.1)
    monkeypatch.setattr(streams, "GUARD_S", 0.05)


async def test_a_client_that_takes_nothing_is_cut_when_its_bytes_reach_the_bound() -> None:
    running, peer = venue(), Peer(takes=False)
    task, channel = await connected(running, peer)
    body = {"text": "x" * (OUTBOX_BYTES_MAX // 8)}
    for _ in range(7):
        channel.publish("trade", body)
    await asyncio.sleep(0.05)
    assert not task.done()
    for _ in range(3):
        channel.publish("trade", body)
    assert sum(map(len, _streams[-1]._outbox)) <= OUTBOX_BYTES_MAX
    await asyncio.wait_for(task, 5)
    assert peer.aborted


async def test_a_client_that_reads_late_is_told_why_it_is_closed() -> None:
    running, peer = venue(), Peer(takes=True)
    task, channel = await connected(running, peer)
    for _ in range(9):
        channel.publish("trade", {"text": "x" * (OUTBOX_BYTES_MAX // 8)})
    await asyncio.wait_for(task, 5)
    assert peer.sent[-1]["type"] == "websocket.close"
    assert peer.sent[-1]["code"] == 1013
    assert not peer.aborted


async def test_control_frames_that_nobody_reads_are_bounded_too() -> None:
    """The answers to PINGs do not pass the outbox: they pile up under it."""
    peer = Peer(takes=True)
    task, _ = await connected(venue(), peer)
    peer.buffered = OUTBOX_BYTES_MAX + 1
    await asyncio.wait_for(task, 5)
    assert peer.aborted


async def test_a_key_that_stopped_to_hold_ends_its_connections_and_no_others() -> None:
    running, ours, theirs = venue(), Peer(takes=True), Peer(takes=True)
    keys = running.mirror.keys
    tasks = []
    for digest, peer in ((b"a" * 32, ours), (b"b" * 32, theirs)):
        keys.add(Key(digest, 1, 1, 0, False))
        tasks.append((await connected(running, peer))[0])
        _streams[-1].use_key(keys.get(digest))
    keys.revoke(b"a" * 32)
    running.hub.check_keys((b"a" * 32,))
    await asyncio.wait_for(tasks[0], 5)
    assert ours.sent[-1]["code"] == 1008
    assert not tasks[1].done()
    keys.load([])
    running.hub.check_keys()
    await asyncio.wait_for(tasks[1], 5)
    assert theirs.sent[-1]["code"] == 1008


class Listener:
    """A subscriber that remembers."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.gaps = 0

    def push(self, message: bytes) -> None:
        self.messages.append(msgspec.json.decode(message))

    def missed(self) -> None:
        self.gaps += 1


def test_a_gap_leaves_out_a_number_and_is_told() -> None:
    hub, listener = Hub(), Listener()
    channel = hub.subscribe("orders", 1, {}, listener)
    channel.publish("order", {})
    hub.announce_gap(3, 40)
    channel.publish("order", {"sequence": 99, "channel": "forged"})
    assert [message.get("sequence") for message in listener.messages] == [1, None, 3]
    assert listener.messages[1] == {"type": "gap", "epoch": 3, "engine_sequence": 40}
    assert listener.messages[2]["channel"] == "orders"
    assert listener.gaps == 1


def test_a_channel_ends_with_its_last_subscriber_and_begins_anew() -> None:
    hub, first, second = Hub(), Listener(), Listener()
    channel = hub.subscribe("orders", 1, {}, first)
    assert hub.subscribe("orders", 1, {}, second) is channel
    hub.leave(first)
    assert hub.listening("orders", 1) is channel
    hub.leave(second)
    assert hub.listening("orders", 1) is None
    assert hub.subscribe("orders", 1, {}, first).instance != channel.instance
