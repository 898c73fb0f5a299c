"""Sequence, logged time, the gate, and what is done to records and text on their way."""

import itertools

import numpy as np
import pytest

from api.runtime.errors import SequencerError
from api.runtime.gate import Batch, OutputGate
from api.runtime.sequencer import LoggedTime, Sequencer
from api.runtime.stamp import scan_text, types_of
from api.runtime.wire import records_buffer
from engine import commands as make
from engine.types import EVENT, CommandType
from persistence.events.arena import Arena
from persistence.text import TextBuilder, TextTag

SECOND = 1_000_000_000


class SetClock:
    def __init__(self, wall: int) -> None:
        self.wall, self.monotonic = wall, 5 * SECOND

    def wall_ns(self) -> int:
        return self.wall

    def monotonic_ns(self) -> int:
        return self.monotonic

    def advance(self, ns: int, wall_ns: int | None = None) -> None:
        self.monotonic += ns
        self.wall += ns if wall_ns is None else wall_ns


def test_logged_time_follows_the_wall_clock() -> None:
    clock = SetClock(1000 * SECOND)
    time = LoggedTime(clock, 0)
    assert time.now_ns() == 1000 * SECOND
    clock.advance(3 * SECOND)
    assert time.now_ns() == 1003 * SECOND


def test_logged_time_never_falls_when_the_wall_clock_steps_back_an_hour() -> None:
    clock = SetClock(10_000 * SECOND)
    time = LoggedTime(clock, 0)
    before = time.now_ns()
    clock.advance(SECOND, -3600 * SECOND)
    stepped = time.now_ns()
    assert before < stepped < before + SECOND
    seen = [stepped]
    for _ in range(100):
        clock.advance(SECOND)
        seen.append(time.now_ns())
    assert all(a < b for a, b in itertools.pairwise(seen))
    assert seen[-1] - seen[0] == 100 * SECOND - 100 * SECOND // 200


def test_logged_time_starts_at_the_last_command_when_the_clock_is_behind_it() -> None:
    clock = SetClock(50 * SECOND)
    assert LoggedTime(clock, 80 * SECOND).now_ns() == 80 * SECOND


def test_sequences_are_dense_over_batches() -> None:
    sequencer = Sequencer(7, LoggedTime(SetClock(SECOND), 0))
    first = make.new(account=1, market=1, side=0, price=np.arange(1, 6), quantity=1)
    second = make.cancel(account=1, order_id=3)
    assert sequencer.stamp(records_buffer(first))[0] == 7
    assert sequencer.stamp(records_buffer(second))[0] == 12
    assert [*first["sequence"], *second["sequence"]] == [7, 8, 9, 10, 11, 12]
    assert set(first["time_ns"]) == {SECOND}
    with pytest.raises(SequencerError):
        Sequencer(0, LoggedTime(SetClock(0), 0))


def test_types_of_finds_the_one_rare_command_in_a_batch() -> None:
    commands = make.new(account=1, market=1, side=0, price=np.arange(1, 100), quantity=1)
    assert types_of(records_buffer(commands)) == 1 << CommandType.NEW
    commands[98]["type"] = CommandType.START
    assert types_of(records_buffer(commands)) == 1 << CommandType.NEW | 1 << CommandType.START
    commands[0]["type"] = 255
    assert types_of(records_buffer(commands)) >> 62 == 1
    with pytest.raises(ValueError, match="127 bytes"):
        types_of(bytes(127))


def test_a_text_area_is_walked_to_its_end_or_refused() -> None:
    text = TextBuilder()
    text.add(0, TextTag.CLIENT_ORDER_ID, b"mine")
    text.add(1, TextTag.DEFINITION, b"{}")
    area = bytes(text)
    assert scan_text(area, 2) == 1 << TextTag.CLIENT_ORDER_ID | 1 << TextTag.DEFINITION
    assert scan_text(area, 1) == -1, "an index beyond the frame's commands"
    for cut in range(1, len(area)):
        if cut != 12:
            assert scan_text(area[:cut], 2) == -1, f"cut at {cut}"
    assert scan_text(area[:12], 2) == 1 << TextTag.CLIENT_ORDER_ID


def batch(first: int, last: int) -> Batch:
    return Batch(Arena().pack(1, first, last, 0, 1, np.zeros(2, EVENT)), None, 0)


def test_the_gate_releases_whole_frames_that_are_durable_and_nothing_else() -> None:
    gate: OutputGate = OutputGate(10)
    for first, last in ((11, 12), (13, 13), (14, 20)):
        gate.hold(batch(first, last))
    assert gate.release(10) == []
    assert [b.last_sequence for b in gate.release(13)] == [12, 13]
    assert gate.release(19) == [], "a frame is released whole or not at all"
    assert gate.released_sequence == 13
    assert [b.last_sequence for b in gate.release(25)] == [20]


def test_the_gate_refuses_a_hole_and_gives_up_what_is_void() -> None:
    gate: OutputGate = OutputGate(0)
    gate.hold(batch(1, 4))
    with pytest.raises(SequencerError):
        gate.hold(batch(6, 7))
    assert [b.first_sequence for b in gate.void()] == [1]
    assert gate.release(100) == []
