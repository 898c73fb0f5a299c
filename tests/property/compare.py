"""Runs a stream through both engines and says where they part."""

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.types import EVENT, SECTIONS, EventType, Side
from tests.property.streams import Stream

Arrays = dict[str, NDArray[np.void]]
Commands = NDArray[np.void]

_REFUSALS = (EventType.REJECTED, EventType.DUPLICATE)
_MAY_CHANGE_BY_REFUSAL = ("sequence", "time_ns", "events", "accepted_no")


class Engine(Protocol):
    def apply(self, commands: Any) -> Any: ...
    def dump(self) -> Any: ...
    def state_hash(self) -> bytes: ...
    def audit(self) -> None: ...
    def depth(self, market: int, levels: int = 0) -> Any: ...
    def order(self, order_id: int, slot: int = ...) -> Any: ...
    def find_key(self, account: int, key: int) -> int: ...
    def find_seen(self, account: int, key: int) -> Any: ...


def record(random: Random, twin: Engine, length: int) -> tuple[Commands, list[bytes]]:
    """Draw a stream with the twin listening; the commands, and the twin's events of each."""
    stream = Stream(random)
    setup = stream.setup()
    commands, events = [setup], [twin.apply(setup[i : i + 1]).tobytes() for i in range(len(setup))]
    for _ in range(length):
        command = stream.next()
        before = twin.dump() if random.random() < 0.05 else None
        made = twin.apply(command)
        if before is not None and made.size and np.isin(made["type"], _REFUSALS).all():
            refused_changes_nothing(before, twin.dump())
        stream.hear(command[0], made)
        commands.append(command)
        events.append(made.tobytes())
    twin.audit()
    return np.concatenate(commands), events


def refused_changes_nothing(before: Arrays, after: Arrays) -> None:
    """Nothing but sequence, time, event count, accepted_no and the table of keys."""
    for name in SECTIONS:
        if name == "venue":
            kept = [field for field in SECTIONS[name].names or () if field not in _MAY_CHANGE_BY_REFUSAL]
            assert (before[name][kept] == after[name][kept]).all(), f"a refusal changed the {name}"
        elif name != "idempotency":
            assert before[name].tobytes() == after[name].tobytes(), f"a refusal changed the {name}"


def cuts_of(random: Random, length: int) -> list[int]:
    """Where to cut a stream into batches: many ends, some far apart, some batches empty."""
    cuts, at = [], 0
    while at < length:
        at = min(at + random.choice((0, 1, 1, 2, 7, 50, 400)), length)
        cuts.append(at)
    return cuts


def apply_in_batches(
    engine: Engine, commands: Commands, events: list[bytes], cuts: list[int], start: int = 0
) -> None:
    """Apply `commands[start:]`, compare each batch's events, sweep after each."""
    for stop in cuts:
        if stop < start:
            continue
        made = engine.apply(commands[start:stop]).tobytes()
        if made != b"".join(events[start:stop]):
            raise AssertionError(_difference(commands, events, start, stop, made))
        engine.audit()
        start = stop


def same_state(one: Engine, other: Engine) -> None:
    """Equal dumps, section by section, and equal hashes."""
    dumps = one.dump(), other.dump()
    for name in SECTIONS:
        left, right = (dump[name] for dump in dumps)
        assert left.dtype == right.dtype == SECTIONS[name]
        assert left.tobytes() == right.tobytes(), f"section {name} differs:\n{left}\n{right}"
    assert one.state_hash() == other.state_hash()


def same_answers(one: Engine, other: Engine) -> None:
    """Every question about the state is answered alike."""
    dump = one.dump()
    for name in ("sequence", "time_ns", "epoch", "accepted_no", "venue_state"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("assets", "markets", "accounts", "keys"):
        left, right = (getattr(engine, name)() for engine in (one, other))
        assert left.tobytes() == right.tobytes() == dump[name].tobytes(), name
    for account in [*dump["accounts"]["account"].tolist(), 12345]:
        for name in ("balances", "orders"):
            left, right = (getattr(engine, name)(account) for engine in (one, other))
            assert left.dtype == right.dtype and left.tobytes() == right.tobytes(), (name, account)
    for order in dump["orders"]:
        order_id, slot = int(order["order_id"]), int(order["slot"])
        for names in ((order_id, slot), (order_id,), (order_id, slot + 1), (order_id + 1, slot), (0, slot)):
            left, right = (engine.order(*names) for engine in (one, other))
            assert (left is None) == (right is None), names
            assert left is None or left.tobytes() == right.tobytes() == order.tobytes()
    for entry in dump["idempotency"]:
        account, key = int(entry["account"]), int(entry["key_hi"]) << 64 | int(entry["key_lo"])
        assert one.find_key(account, key) == other.find_key(account, key) == entry["sequence"]
        assert (
            one.find_seen(account, key).tobytes()
            == other.find_seen(account, key).tobytes()
            == entry.tobytes()
        )
        assert one.find_seen(account + 50, key) is other.find_seen(account + 50, key) is None
        assert one.find_key(account + 50, key) == other.find_key(account + 50, key) == 0


def depth_is_the_book(engine: Engine) -> None:
    """`depth` equals the orders of the dump, summed by price."""
    dump = engine.dump()
    orders = dump["orders"]
    for market in dump["markets"]["market"]:
        for side, levels in zip(Side, engine.depth(int(market)), strict=True):
            mine = orders[(orders["market"] == market) & (orders["side"] == side)]
            summed: dict[int, list[int]] = {}
            for order in mine:
                level = summed.setdefault(int(order["price"]), [0, 0])
                level[0] += int(order["leaves"])
                level[1] += 1
            expected = [(price, *level) for price, level in summed.items()]
            assert levels.tolist() == expected


def agree(
    random: Random,
    length: int,
    new_twin: Callable[[], Engine],
    new_core: Callable[[], Engine],
    load_twin: Callable[[Arrays], Engine],
    load_core: Callable[[Arrays], Engine],
) -> int:
    """All properties on one stream; how many commands it had."""
    twin = new_twin()
    commands, events = record(random, twin, length)
    core = new_core()
    apply_in_batches(core, commands, events, cuts_of(random, len(commands)))
    same_state(twin, core)
    same_answers(twin, core)
    depth_is_the_book(core)
    depth_is_the_book(twin)

    other = new_core()
    cuts = cuts_of(random, len(commands))
    middle = cuts[len(cuts) // 2]
    apply_in_batches(other, commands, events, [cut for cut in cuts if cut <= middle])
    arrays = {name: section.copy() for name, section in other.dump().items()}
    apply_in_batches(other, commands, events, [len(commands)], start=middle)
    same_state(twin, other)
    for load in (load_core, load_twin):
        loaded = load(arrays)
        assert loaded.state_hash() == load_twin(arrays).state_hash()
        apply_in_batches(loaded, commands, events, [len(commands)], start=middle)
        same_state(twin, loaded)
    return len(commands)


def _difference(commands: Commands, events: list[bytes], start: int, stop: int, made: bytes) -> str:
    """The first command whose events differ, with both."""
    at = 0
    for index in range(start, stop):
        expected = events[index]
        got = made[at : at + len(expected)]
        if got != expected:
            wanted = np.frombuffer(expected, EVENT)
            mine = np.frombuffer(made, EVENT)
            mine = mine[mine["sequence"] == index + 1]
            fields = {
                name: commands[index][name] for name in commands.dtype.names or () if commands[index][name]
            }
            return f"command {index + 1} {fields}\n  twin {wanted}\n  core {mine}"
        at += len(expected)
    return f"commands {start + 1} to {stop}: {len(made) - at} bytes of events too many"
