"""Rows of recovery/README.md's decision table, one directory each."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine import Engine
from engine import commands as make
from engine.errors import InvariantViolation
from engine.types import VenueState
from persistence.errors import CorruptionError, LockHeld
from persistence.log import LogWriter, scan
from persistence.storage import Disk
from recovery.errors import BeyondLog, EventsDiffer, HistoryMissing, ReplayHalted
from recovery.restart import Recovered, recover
from tests.recovery.history import History, flip
from tests.runtime.run_engine import BreakingEngine


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "venue"


@contextmanager
def recovered(data: Path, engine_class: type = Engine) -> Iterator[Recovered]:
    result = recover(Disk(), data, engine_class=engine_class)
    try:
        yield result
    finally:
        result.events.close()
        result.lock.release()


def event_bytes(data: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((data / "events").glob("*.events")))


def segment(data: Path) -> Path:
    return max((data / "log").glob("*.log"))


def test_an_empty_directory_is_an_empty_venue_in_its_first_epoch(data: Path) -> None:
    with recovered(data) as venue:
        assert (venue.next_sequence, venue.next_event_number, venue.epoch) == (1, 1, 1)
        assert venue.report.result == "RECOVERED"


def test_exactly_what_follows_the_checkpoint_is_replayed(data: Path) -> None:
    """SPEC R1 in small: checkpoint at S, log to S + k, exactly S + 1 … S + k are replayed."""
    with History(data) as history:
        history.setup()
        history.orders(491)
        history.checkpoint()
        checkpointed = history.sequence
        history.orders(100)
        end = history.sequence
    with recovered(data) as venue:
        report = venue.report
        assert (checkpointed, end) == (500, 600)
        assert report.checkpoint_sequence == 500
        assert (report.replayed, report.replayed_first, report.replayed_last) == (100, 501, 600)
        assert report.event_frames_compared == 5
        assert report.event_frames_appended == 0
        assert report.state_hash == history.hashes[600] == venue.engine.state_hash().hex()
        assert venue.definitions.markets[1]["symbol"] == "BTC/USDT"
        assert venue.definitions.accounts[2] == {"name": "bob"}
        assert venue.time_ns == 1000 * 581


def test_the_log_alone_gives_the_same_state_as_a_checkpoint(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.orders(300)
        path = history.checkpoint()
    with recovered(data) as from_checkpoint:
        assert from_checkpoint.report.replayed == 0
        first = (from_checkpoint.report.state_hash, from_checkpoint.definitions.to_section().tobytes())
    path.unlink()
    with recovered(data) as from_log:
        assert from_log.report.replayed == 309
        assert (from_log.report.state_hash, from_log.definitions.to_section().tobytes()) == first


def test_recovery_can_be_repeated_and_changes_nothing(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.orders(60)
    before = event_bytes(data)
    for _ in range(3):
        with recovered(data) as venue:
            assert venue.report.state_hash == history.hashes[history.sequence]
            assert venue.epoch == 2, "an epoch that released nothing is not used up"
    assert event_bytes(data) == before


def test_a_damaged_newest_checkpoint_is_skipped_with_an_alert(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.orders(91)
        older = history.checkpoint()
        history.orders(100)
        newest = history.checkpoint()
        history.orders(50)
    flip(newest, newest.stat().st_size // 2)
    with recovered(data) as venue:
        report = venue.report
        assert report.checkpoint_path == str(older)
        assert report.replayed == 150
        assert [skip["path"] for skip in report.checkpoints_skipped] == [str(newest)]
        assert any(str(newest) in alert for alert in report.alerts)
        assert report.state_hash == history.hashes[250]


def test_a_checkpoint_that_says_another_state_hash_is_skipped(data: Path, monkeypatch) -> None:
    with History(data) as history:
        history.setup()
        history.orders(40)
        monkeypatch.setattr("tests.recovery.history.state_hash", lambda sections: b"\7" * 32)
        history.checkpoint()
    with recovered(data) as venue:
        assert venue.report.checkpoint_sequence == 0
        assert "not to what it says" in venue.report.checkpoints_skipped[0]["why"]
        assert venue.report.replayed == 49


def test_a_checkpoint_beyond_the_end_of_the_log_is_refused(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.orders(40)
        history.checkpoint()
    for path in (data / "log").glob("*"):
        path.unlink()
    for path in (data / "events").glob("*"):
        path.unlink()
    with pytest.raises(BeyondLog, match="reaches sequence 49, the log ends at 0"):
        recover(Disk(), data, engine_class=Engine)


def test_events_beyond_the_end_of_the_log_are_refused(data: Path) -> None:
    """An acknowledged record that is gone from the log's end is not a torn tail."""
    with History(data) as history:
        history.setup()
        history.orders(40)
    end = scan(Disk(), data / "log").end
    log = segment(data)
    content = bytearray(log.read_bytes())
    last_frame = 128 + 20 * 128
    content[end.offset - last_frame : end.offset] = bytes(last_frame)
    log.write_bytes(content)
    with pytest.raises(BeyondLog, match="the event segments reaches sequence 49"):
        recover(Disk(), data, engine_class=Engine)


def test_a_torn_tail_is_cut_and_counted(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.orders(40)
        end = history.sequence
        history.frame(make.open_asset(), released=False)
    after = scan(Disk(), data / "log").end.offset
    log = segment(data)
    content = bytearray(log.read_bytes())
    content[after - 200 : after] = bytes(200)
    log.write_bytes(content)
    with recovered(data) as venue:
        report = venue.report
        assert venue.next_sequence == end + 1
        assert report.torn_path == str(log)
        assert 0 < report.torn_bytes <= 56
        assert report.state_hash == history.hashes[end]
        assert f"{report.torn_bytes} bytes at offset" in report.to_text()
    with recovered(data) as venue:
        writer = LogWriter(
            Disk(), data / "log", epoch=venue.epoch, next_sequence=venue.next_sequence, end=venue.log_end
        )
        commands = make.start(epoch=venue.epoch)
        commands["sequence"] = venue.next_sequence
        writer.append(commands, b"", 10**9)
        writer.wait(venue.next_sequence)
        writer.close()
    with recovered(data) as venue:
        assert venue.report.torn_bytes == 0
        assert venue.next_sequence == end + 2
        assert venue.epoch == 3


def test_corruption_before_the_end_is_refused_and_says_where(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.orders(100)
    flip(segment(data), 4096 + 200)
    with pytest.raises(CorruptionError, match=r"\.log at offset 4096, sequence 1"):
        recover(Disk(), data, engine_class=Engine)
    with Disk().lock(data / "lock"):
        pass  # A refused recovery gives the directory back.


def test_missing_events_are_written_anew_with_the_same_bytes(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.orders(100)
    whole = event_bytes(data)
    (path,) = (data / "events").glob("*.events")
    path.write_bytes(whole[: len(whole) // 2 + 7])
    with recovered(data) as venue:
        assert venue.report.event_frames_appended > 0
        assert venue.report.event_frames_compared > 0
        assert venue.report.event_frames_appended + venue.report.event_frames_compared == 6
    assert event_bytes(data) == whole


def test_a_checkpoint_younger_than_the_events_is_not_used(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.orders(40)
        history.checkpoint()
    whole = event_bytes(data)
    (path,) = (data / "events").glob("*.events")
    path.write_bytes(whole[: len(whole) // 3])
    with recovered(data) as venue:
        assert venue.report.checkpoint_sequence == 0
        assert "younger than the event segments" in venue.report.checkpoints_skipped[0]["why"]
    assert event_bytes(data) == whole, "no hole in the events"


def test_replay_that_gives_other_events_than_those_released_is_refused(data: Path) -> None:
    class Drifted(Engine):
        """As a changed rule would: one price differs."""

        def apply(self, commands):
            events = super().apply(commands).copy()
            events["price"][events["sequence"] == 33] += 1
            return events

    with History(data) as history:
        history.setup()
        history.orders(100)
    with pytest.raises(EventsDiffer, match=r"sequences 30\.\.49"):
        recover(Disk(), data, engine_class=Drifted)


def test_a_log_that_does_not_reach_back_to_a_usable_checkpoint_is_refused(data: Path) -> None:
    with History(data, segment_bytes=16384) as history:
        history.setup()
        history.orders(100)
        path = history.checkpoint()
        history.orders(400)
    oldest = sorted((data / "log").glob("*.log"))[0]
    oldest.unlink()
    path.unlink()
    with pytest.raises(HistoryMissing, match="the log begins at"):
        recover(Disk(), data, engine_class=Engine)


def test_halt_voids_from_its_command_on_and_the_venue_stays_halted(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.orders(20)
        sound = history.sequence
        history.frame(make.open_asset(), released=False)
        history.writer.halt(sound + 1, b'{"invariant":"I1"}')
    with recovered(data) as venue:
        report = venue.report
        assert venue.halted and report.halted
        assert report.halt_sequence == sound + 1
        assert venue.next_sequence == sound + 1
        assert report.state_hash == history.hashes[sound]
        assert "stays HALTED until an operator resumes" in report.to_text()


def test_a_checkpoint_of_voided_commands_is_not_used(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.orders(20)
        sound = history.sequence
        history.frame(make.open_asset(), released=False)
        path = history.checkpoint()
        history.writer.halt(sound + 1, b"{}")
    with recovered(data) as venue:
        assert venue.report.checkpoints_skipped[0]["path"] == str(path)
        assert venue.report.sequence == sound


def test_a_replay_that_breaks_an_invariant_logs_halt_and_the_next_start_honours_it(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.orders(20)
        sound = history.sequence
        history.frame(make.new(account=1, market=1, side=0, price=5, quantity=777))
        history.orders(20)

    class Broken(BreakingEngine):
        quantity = 777

    with pytest.raises(ReplayHalted) as halted:
        recover(Disk(), data, engine_class=Broken)
    assert halted.value.sequence == sound + 1
    assert isinstance(halted.value.__cause__, InvariantViolation)
    # What had been released from there on is beyond the log now: a person has to look.
    with pytest.raises(BeyondLog, match=f"the log ends at {sound}"):
        recover(Disk(), data, engine_class=Broken)


def test_a_directory_in_use_is_refused_naming_the_owner(data: Path) -> None:
    with recovered(data), pytest.raises(LockHeld, match=r"pid \d+"):
        recover(Disk(), data, engine_class=Engine)


def test_the_report_is_kept_for_machines_and_for_people(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.orders(100)
    with recovered(data):
        pass
    (path,) = (data / "reports").glob("*.json")
    report = json.loads(path.read_bytes())
    assert report["replayed"] == 109
    steps = [step["step"] for step in report["steps"]]
    assert steps == [
        "scan the log",
        "sync what was read",
        "find the end of the events",
        "load the checkpoint",
        "replay the log",
        "sweep the invariants",
        "hash the state",
    ]
    text = path.with_suffix(".txt").read_text()
    assert "replayed    109 commands, 1..109" in text
    assert report["state_hash"] in text


def test_the_state_of_the_venue_comes_back_as_it_was(data: Path) -> None:
    with History(data) as history:
        history.setup()
        history.frame(make.set_venue_state(state=VenueState.CANCEL_ONLY))
    with recovered(data) as venue:
        assert venue.engine.dump()["venue"]["state"][0] == VenueState.CANCEL_ONLY
