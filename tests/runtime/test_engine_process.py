"""The engine process from outside: submits, feeds, queries, checkpoints, HALT, clean stop."""

import asyncio
import itertools
import socket
from pathlib import Path

import numpy as np
import pytest

from api.runtime.errors import LinkDown, Refused
from api.runtime.link import Answer, EngineLink
from api.runtime.paths import engine_socket
from api.runtime.wire import Decoder, Kind, encode, encode_json, records_buffer
from engine import commands as make
from engine.types import EventType, VenueState
from persistence.text import TextBuilder, TextTag
from tests.runtime.venue import (
    EngineUnderTest,
    checkpoints,
    descriptors,
    random_orders,
    setup_commands,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "venue"


async def opened(link: EngineLink) -> Answer:
    commands, text = setup_commands()
    return await link.submit(commands, text)


async def test_a_submit_is_answered_with_its_own_events_in_sequence_order(data: Path) -> None:
    with EngineUnderTest(data, "--no-database") as engine:
        link = await engine.link()
        setup = await opened(link)
        assert setup.count == 9
        assert set(setup.events["sequence"]) == set(range(setup.first_sequence, setup.first_sequence + 9))
        sell, buy = await asyncio.gather(
            link.submit(make.new(account=1, market=1, side=1, price=100, quantity=10)),
            link.submit(make.new(account=2, market=1, side=0, price=100, quantity=4)),
        )
        assert buy.first_sequence == sell.first_sequence + 1, "one turn of the loop is one frame, in order"
        assert set(sell.events["sequence"]) == {sell.first_sequence}
        fills = buy.events[buy.events["type"] == EventType.FILL]
        assert list(fills["quantity"]) == [4, 4]
        assert link.in_flight == 0
        await link.close()


async def test_subscribers_see_every_event_once_and_in_order_from_welcome_on(data: Path) -> None:
    frames: list[tuple[int, int]] = []
    welcomes: list[dict] = []
    with EngineUnderTest(data, "--no-database") as engine:
        sender = await engine.link()
        await opened(sender)
        await sender.submit(make.new(account=1, market=1, side=1, price=105, quantity=3))
        link = await engine.link(
            "gateway",
            subscribe=True,
            on_welcome=welcomes.append,
            on_events=lambda epoch, first, last, time_ns, events, text: frames.append((first, last)),
        )
        random = np.random.default_rng(5)
        mine = [link.submit(random_orders(random, 7)) for _ in range(3)]
        theirs = await asyncio.gather(*(sender.submit(random_orders(random, 5)) for _ in range(3)), *mine)
        last = max(answer.first_sequence + answer.count - 1 for answer in theirs)
        while not frames or frames[-1][1] < last:
            await asyncio.sleep(0.01)
        welcome = welcomes[0]
        assert frames[0][0] == welcome["sequence"] + 1
        assert all(b[0] == a[1] + 1 for a, b in itertools.pairwise(frames))
        assert welcome["books"] == {"1": {"bids": [], "asks": [[105, 3, 1]]}}
        assert welcome["definitions"]["markets"][0]["symbol"] == "BTC/USDT"
        assert welcome["definitions"]["accounts"][1] == {"name": "alice", "account": 1, "state": 0}
        await sender.close()
        await link.close()


async def test_queries_answer_of_a_durable_state(data: Path) -> None:
    with EngineUnderTest(data, "--no-database") as engine:
        link = await engine.link("admin")
        await opened(link)
        order = make.new(
            account=1, market=1, side=0, price=90, quantity=2, client_id=77, key=1 << 70 | 5, body=9
        )
        text = TextBuilder()
        text.add(0, TextTag.CLIENT_ORDER_ID, b"mine")
        answer = await link.submit(order, bytes(text))
        sequence = answer.first_sequence
        assert (await link.query("depth", market=1, levels=5))["bids"] == [[90, 2, 1]]
        orders = await link.query("orders", account=1)
        assert [row["order_id"] for row in orders["orders"]] == [sequence]
        slot = orders["orders"][0]["slot"]
        found = await link.query("order", order_id=sequence, slot=slot)
        assert found["order"] == orders["orders"][0] and found["order"]["leaves"] == 2
        assert (await link.query("order", order_id=999, slot=slot))["order"] is None
        balances = (await link.query("balances", account=1))["balances"]
        assert {row["asset"]: row["held"] for row in balances}[2] == 181
        key = await link.query("key", account=1, key_lo=5, key_hi=1 << 6)
        assert (key["sequence"], key["body"]) == (sequence, 9)
        assert (await link.query("key", account=2, key_lo=5, key_hi=1 << 6))["sequence"] is None
        events = await link.query("events", sequence=sequence)
        assert bytes.fromhex(events["events"]) == answer.events.tobytes()
        assert events["text"] == [[TextTag.CLIENT_ORDER_ID, b"mine".hex()]]
        status = await link.query("status")
        assert status["durable_sequence"] == sequence
        for bad in ({"what": "nonsense"}, {"what": "depth"}, {"what": "depth", "market": 9}):
            with pytest.raises(Refused):
                await link.query(**bad)
        await link.close()


async def test_only_the_engine_logs_start_and_only_a_drainer_drained(data: Path) -> None:
    with EngineUnderTest(data) as engine:
        gateway, drainer = await engine.link("gateway"), await engine.link("drainer")
        assert gateway.venue_state == VenueState.DRAINING
        before = (await gateway.query("status"))["sequence"]
        mixed = np.concatenate([make.open_asset(), make.start(epoch=9)])
        with pytest.raises(Refused, match="BAD_REQUEST"):
            await gateway.submit(mixed)
        with pytest.raises(Refused, match="BAD_REQUEST"):
            await gateway.submit(make.drained())
        with pytest.raises(Refused, match="malformed"):
            await gateway.submit(make.open_asset(), b"\0\0\0\0\1\0\xff\xff")
        bad = TextBuilder()
        bad.add(0, TextTag.DEFINITION, b"not json")
        with pytest.raises(Refused, match="definition"):
            await gateway.submit(make.open_asset(), bytes(bad))
        assert (await gateway.query("status"))["sequence"] == before, "what is refused is not sequenced"
        await drainer.submit(make.drained())
        async with asyncio.timeout(5):
            while gateway.venue_state != VenueState.OPEN:
                await asyncio.sleep(0.01)
        await gateway.close()
        await drainer.close()


def connected(data: Path, role: str = "bench") -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10)
    connection.connect(str(engine_socket(data)))
    hello = {"role": role, "version": 1, "subscribe": False}
    connection.sendall(b"".join(encode_json(Kind.HELLO, hello)))
    return connection


def ends(connection: socket.socket) -> bool:
    """Whether the engine closes it, whatever it says before."""
    try:
        while connection.recv(65536):
            continue
    except ConnectionResetError:
        return True
    return True


def damaged_frames() -> dict[str, bytes]:
    whole = b"".join(encode(Kind.SUBMIT, records_buffer(make.open_asset()), correlation=1, count=1))
    flipped = bytearray(whole)
    flipped[100] ^= 4
    return {
        "bad checksum": bytes(flipped),
        "bad magic": b"GET / HTTP/1.1\r\n" + bytes(64),
        "oversize": whole[:8] + (1 << 31).to_bytes(4, "little") + whole[12:],
        "a kind only the engine sends": b"".join(encode_json(Kind.HEARTBEAT, {})),
        "a second hello": b"".join(
            encode_json(Kind.HELLO, {"role": "bench", "version": 1, "subscribe": False})
        ),
        "json that is none": b"".join(encode(Kind.QUERY, b"{'what':")),
        "truncated": whole[:150],
    }


async def test_a_bad_frame_ends_its_own_connection_and_changes_nothing(data: Path) -> None:
    with EngineUnderTest(data, "--no-database") as engine:
        link = await engine.link()
        await opened(link)
        before = await link.query("state_hash")
        open_before = descriptors(engine.pid)
        for name, frame in damaged_frames().items():
            with connected(data) as connection:
                connection.sendall(frame)
                if name == "truncated":
                    connection.shutdown(socket.SHUT_WR)
                assert ends(connection), name
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as nameless:
            nameless.settimeout(10)
            nameless.connect(str(engine_socket(data)))
            nameless.sendall(damaged_frames()["bad checksum"][:0] + b"".join(
                encode(Kind.SUBMIT, records_buffer(make.open_asset()), count=1)))  # fmt: skip
            assert ends(nameless), "SUBMIT before HELLO"
        assert await link.query("state_hash") == before
        assert link.connected
        assert descriptors(engine.pid) == open_before, "each connection's descriptor is given back"
        await link.close()


async def test_a_subscriber_that_does_not_read_is_dropped_and_the_others_go_on(data: Path) -> None:
    with EngineUnderTest(data, "--no-database") as engine:
        link = await engine.link()
        await opened(link)
        with connected(data) as stuck:
            stuck.sendall(b"")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
                slow.settimeout(10)
                slow.connect(str(engine_socket(data)))
                hello = {"role": "gateway", "version": 1, "subscribe": True}
                slow.sendall(b"".join(encode_json(Kind.HELLO, hello)))
                random = np.random.default_rng(3)
                orders = random_orders(random, 4096)
                async with asyncio.timeout(10):
                    while (await link.query("status"))["connections"] < 3:
                        await asyncio.sleep(0.01)
                while (await link.query("status"))["connections"] == 3:
                    await asyncio.gather(*(link.submit(orders) for _ in range(20)))
                decoder = Decoder(1 << 26)
                count = slow.recv_into(decoder.get_buffer())
                decoder.received(count)
                assert next(decoder.frames()).kind == Kind.WELCOME
        assert "wait for a client that does not read" in engine.log.read_text()
        await link.close()


async def test_a_checkpoint_on_demand_is_published_and_the_next_start_uses_it(data: Path) -> None:
    with EngineUnderTest(data, "--no-database") as engine:
        link = await engine.link("admin")
        await opened(link)
        report = await link.query("checkpoint")
        assert [str(path) for path in checkpoints(data)] == [report["path"]]
        after = await link.submit(random_orders(np.random.default_rng(1), 50))
        state = await link.query("state_hash")
        engine.kill()
        await link.close()
        with EngineUnderTest(data, "--no-database") as again:
            recovery = again.report()
            assert recovery["checkpoint_sequence"] == report["sequence"]
            assert (recovery["replayed_first"], recovery["replayed"]) == (after.first_sequence, 50)
            assert recovery["state_hash"] == state["state_hash"]
            assert again.stop() == 0


async def test_checkpoints_come_by_count_and_by_time_and_three_are_kept(data: Path) -> None:
    with EngineUnderTest(data, "--no-database", "--checkpoint-seconds", "0.3") as engine:
        link = await engine.link("bench")
        await opened(link)
        random = np.random.default_rng(1)
        seen: set[str] = set()
        async with asyncio.timeout(30):
            while len(seen) < 5:
                await link.submit(random_orders(random, 100))
                seen |= {path.name for path in checkpoints(data)}
                await asyncio.sleep(0.02)
        await link.close()
        assert engine.stop() == 0
    assert len(checkpoints(data)) == 3


async def test_sigterm_releases_what_was_accepted_and_leaves_nothing_to_replay(data: Path) -> None:
    with EngineUnderTest(data, "--no-database") as engine:
        link = await engine.link()
        await opened(link)
        answers = await asyncio.gather(
            *(link.submit(random_orders(np.random.default_rng(n), 50)) for n in range(20))
        )
        state = await link.query("state_hash")
        assert engine.stop() == 0
        await link.close()
        assert not engine_socket(data).exists()
        assert not (data / "run" / "engine.json").exists()
        with EngineUnderTest(data, "--no-database") as again:
            recovery = again.report()
            assert recovery["replayed"] == 0
            assert recovery["sequence"] == answers[-1].first_sequence + 49
            assert recovery["state_hash"] == state["state_hash"]


def test_a_second_engine_on_the_directory_exits_at_once_and_names_the_first(data: Path) -> None:
    with EngineUnderTest(data, "--no-database") as engine:
        second = EngineUnderTest(data, "--no-database").start(wait=False)
        assert second.wait() == 73
        assert f"pid {engine.pid}" in second.log.read_text()
        assert engine.wait_ready()["pid"] == engine.pid, "the first one's files are untouched"


async def test_an_invariant_that_breaks_voids_the_rest_and_stays_halted(data: Path) -> None:
    wrapper = ("--break-on-quantity", "666")
    with EngineUnderTest(data, "--no-database", wrapper=wrapper) as engine:
        link = await engine.link()
        await opened(link)
        kept = await link.submit(make.new(account=1, market=1, side=0, price=50, quantity=5))
        state = await link.query("state_hash")
        with pytest.raises(Refused, match="VENUE_HALTED"):
            await link.submit(make.new(account=1, market=1, side=0, price=50, quantity=666))
        assert engine.wait() == 70
        await link.close()
        assert "P0 HALT at sequence" in engine.log.read_text()
    with EngineUnderTest(data, "--no-database") as again:
        recovery = again.report()
        assert recovery["halted"] is True
        assert recovery["halt_sequence"] == kept.first_sequence + 1
        assert recovery["sequence"] == kept.first_sequence
        assert recovery["state_hash"] == state["state_hash"], "the state before N"
        link = await again.link("admin")
        assert link.venue_state == VenueState.HALTED
        refused = await link.submit(make.new(account=1, market=1, side=0, price=50, quantity=1))
        assert refused.events[0]["type"] == EventType.REJECTED
        again.kill()
        await link.close()
    with EngineUnderTest(data, "--no-database") as third:
        link = await third.link("admin")
        assert link.venue_state == VenueState.HALTED, "a restart is no operator"
        await link.submit(make.set_venue_state(state=VenueState.OPEN))
        third.kill()
        await link.close()
    with EngineUnderTest(data, "--no-database") as fourth:
        link = await fourth.link("admin")
        assert fourth.report()["halted"] is False
        assert link.venue_state == VenueState.OPEN, "an operator resumed"
        await link.close()


async def test_a_frame_that_halt_cuts_in_two_keeps_its_sound_part_and_its_sender_must_ask(data: Path) -> None:
    with EngineUnderTest(data, "--no-database", wrapper=("--break-on-quantity", "666")) as engine:
        link = await engine.link()
        await opened(link)
        order = make.new(account=1, market=1, side=0, price=50, quantity=[5, 5, 666, 5])
        before = (await link.query("status"))["sequence"]
        with pytest.raises(LinkDown) as lost:
            await link.submit(order)
        assert lost.value.sent, "the outcome is unknown until the engine is back"
        assert engine.wait() == 70
        await link.close()
    with EngineUnderTest(data, "--no-database") as again:
        assert again.report()["sequence"] == before + 2
        link = await again.link()
        assert len((await link.query("orders", account=1))["orders"]) == 2
        await link.close()


async def test_a_checkpoint_whose_sweep_fails_halts_the_venue_and_is_not_published(data: Path) -> None:
    with EngineUnderTest(data, "--no-database", wrapper=("--break-audit",)) as engine:
        link = await engine.link("admin")
        await opened(link)
        with pytest.raises(LinkDown):
            await link.query("checkpoint")
        assert engine.wait() == 70
        await link.close()
    assert checkpoints(data) == []


async def test_after_a_failed_sync_nothing_is_acknowledged_and_the_process_ends(data: Path) -> None:
    acknowledged: list[Answer] = []
    with EngineUnderTest(data, "--no-database", wrapper=("--fail-sync", "12")) as engine:
        link = await engine.link()
        acknowledged.append(await opened(link))
        random = np.random.default_rng(1)
        with pytest.raises(LinkDown) as lost:
            for _ in range(100):
                acknowledged.append(await link.submit(random_orders(random, 40)))
        assert lost.value.sent
        assert engine.wait() == 74
        await link.close()
        assert "nothing more was acknowledged" in engine.log.read_text()
    with EngineUnderTest(data, "--no-database") as again:
        last = acknowledged[-1].first_sequence + acknowledged[-1].count - 1
        assert again.report()["sequence"] >= last, "what is on disk decides"
        link = await again.link()
        for answer in acknowledged:
            stored = await link.query("events", sequence=answer.first_sequence)
            own = answer.events[answer.events["sequence"] == answer.first_sequence]
            assert stored["events"] == own.tobytes().hex()
        await link.close()


async def test_a_failed_sync_of_an_event_segment_stops_the_engine_and_says_which(data: Path) -> None:
    acknowledged: list[Answer] = []
    with EngineUnderTest(data, "--no-database", wrapper=("--fail-events", "3")) as engine:
        link = await engine.link()
        acknowledged.append(await opened(link))
        with pytest.raises(LinkDown):
            for seed in range(200):
                acknowledged.append(await link.submit(random_orders(np.random.default_rng(seed), 400)))
        assert engine.wait() == 74
        await link.close()
        assert "P0 sync of " in engine.log.read_text()
        assert len(list((data / "events").glob("*.events"))) == 3, "no successor without the sync"
    with EngineUnderTest(data, "--no-database") as again:
        link = await again.link()
        for answer in acknowledged:
            stored = await link.query("events", sequence=answer.first_sequence)
            own = answer.events[answer.events["sequence"] == answer.first_sequence]
            assert stored["events"] == own.tobytes().hex(), "replay wrote what was not there"
        await link.close()


async def test_nothing_leaves_while_its_sync_has_not_returned(data: Path) -> None:
    seen: list[int] = []
    with EngineUnderTest(data, "--no-database", wrapper=("--stall-sync", "6")) as engine:
        watcher = await engine.link(
            "gateway",
            subscribe=True,
            on_events=lambda epoch, first, last, time_ns, events, text: seen.append(last),
        )
        link = await engine.link()
        await opened(link)
        answered = 0
        stalled = False
        while not stalled:
            # More than the loop syncs itself, so that it goes on serving while the sync hangs.
            future = link.submit(random_orders(np.random.default_rng(1), 100))
            done, _ = await asyncio.wait([future], timeout=1.0)
            stalled = not done
            answered = future.result().first_sequence + 99 if done else answered
        assert watcher.heartbeat["applied_sequence"] == answered + 100, "it was applied"
        assert watcher.heartbeat["durable_sequence"] == watcher.heartbeat["sequence"] == answered
        assert max(seen) == answered
        future.cancel()
        engine.kill()
        await link.close()
        await watcher.close()


async def test_a_link_comes_back_after_the_engine_died_with_the_next_epoch(data: Path) -> None:
    downs: list[Exception | None] = []
    with EngineUnderTest(data, "--no-database") as engine:
        link = await engine.link(on_down=downs.append)
        await opened(link)
        epoch = link.epoch
        engine.kill()
        async with asyncio.timeout(10):
            while link.connected:
                await asyncio.sleep(0.01)
        with pytest.raises(LinkDown) as unsent:
            await link.submit(make.open_asset())
        assert not unsent.value.sent
        with EngineUnderTest(data, "--no-database"):
            assert await link.wait_connected(30)
            assert link.epoch == epoch + 1
            assert (await link.submit(make.open_asset())).epoch == epoch + 1
            await link.close()
        assert len(downs) == 2


def test_a_directory_with_a_long_path_is_served_on_a_short_socket(tmp_path: Path) -> None:
    data = tmp_path / ("x" * 80) / "venue"
    data.parent.mkdir()
    with EngineUnderTest(data, "--no-database") as engine:
        ready = engine.wait_ready()
        assert len(ready["socket"]) < 100
        assert ready["socket"] == str(engine_socket(data))
        with connected(data) as connection:
            assert connection.recv(4) == b"HFW1"
        assert engine.stop() == 0
