"""Checkpoint + log → the state before the crash, proved (SPEC R1).

    lock the directory → scan the log, sync what was read → newest valid checkpoint
    → load, compare the state hash → replay what follows, comparing events with those
    released, writing those that are missing → full sweep → new epoch → report

Everything here can be killed and begun again: it changes nothing but a torn
event tail, missing event frames and the report.  The rows of the decision table
in README.md are named in the code (L-c, C-b, …).
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
from tqdm import tqdm

from engine.errors import InvariantViolation, StateError
from engine.types import SECTIONS
from persistence import checkpoint
from persistence.checkpoint import Checkpoint
from persistence.errors import CorruptionError
from persistence.events import EventReader, EventWriter
from persistence.log import LogEnd, LogScan, LogWriter, scan, sync_all
from persistence.storage import AnyDisk, AnyLock
from recovery.definitions import SECTION, Definitions
from recovery.engine import AnyEngine
from recovery.errors import BeyondLog, HistoryMissing, ReplayHalted
from recovery.replay import Replay
from recovery.report import RecoveryReport


@dataclass(slots=True)
class Recovered:
    """A venue ready to go on.

    Attributes
    ----------
    engine : AnyEngine
        The state after `next_sequence` − 1.
    lock : AnyLock
        Of the directory; release it last.
    events : EventWriter
        Ends at `next_sequence` − 1.
    log_end : LogEnd or None
        For `LogWriter`.
    next_event_number : int
        Number of the next event.
    epoch : int
        Of this process, above every epoch seen.
    time_ns : int
        Logged time of the last command.
    halted : bool
        A HALT stands that no operator has answered: trade nothing.
    checkpoint_sequence : int
        Of the checkpoint that was loaded, 0 for none.
    """

    engine: AnyEngine
    definitions: Definitions
    lock: AnyLock
    events: EventWriter
    log_end: LogEnd | None
    next_sequence: int
    next_event_number: int
    epoch: int
    time_ns: int
    halted: bool
    checkpoint_sequence: int
    report: RecoveryReport


def take_lock(disk: AnyDisk, data: Path) -> AnyLock:
    """Make the directory this process's own, or say whose it is.

    Raises
    ------
    LockHeld
    """
    disk.make_directory(data)
    return disk.lock(data / "lock")


def recover(
    disk: AnyDisk,
    data: Path,
    *,
    engine_class: type[AnyEngine],
    progress: bool = False,
    lock: AnyLock | None = None,
) -> Recovered:
    """Bring the venue of `data` back to the last durable command.

    Parameters
    ----------
    progress : bool
        Draw a bar on a terminal.
    lock : AnyLock, optional
        As `take_lock` gave it; taken here when missing, released on any error.

    Raises
    ------
    LockHeld
        Another process owns the directory.
    CorruptionError
        Bytes that were acknowledged are damaged.
    RecoveryError
        See `recovery.errors`.
    StorageError
        The disk refused.
    """
    lock = lock or take_lock(disk, data)
    try:
        return _Restart(disk, data, engine_class, progress, lock).run()
    except BaseException:
        lock.release()
        raise


class _Restart:
    """The steps, in order; each leaves its result here."""

    def __init__(
        self, disk: AnyDisk, data: Path, engine_class: type[AnyEngine], progress: bool, lock: AnyLock
    ) -> None:
        self.disk = disk
        self.data = data
        self.engine_class = engine_class
        self.progress = progress
        self.lock = lock
        self.report = RecoveryReport(str(data))

    def run(self) -> Recovered:
        begun = time.monotonic()
        report = self.report
        for name in ("log", "events", "checkpoints", "reports"):
            self.disk.make_directory(self.data / name)
        with report.step("scan the log"):
            log = scan(self.disk, self.data / "log")
        self._describe(log)
        with report.step("sync what was read"):
            sync_all(self.disk, self.data / "log")
            checkpoint.remove_temporaries(self.disk, self.data / "checkpoints")
        with report.step("find the end of the events"):
            events = EventWriter.open(self.disk, self.data / "events")
        try:
            recovered = self._rebuild(log, events)
        except BaseException:
            events.close()
            raise
        report.total_s = round(time.monotonic() - begun, 6)
        report.result = "HALTED" if recovered.halted else "RECOVERED"
        try:
            report.save(self.disk, self.data / "reports")
        except BaseException:
            events.close()
            raise
        return recovered

    def _describe(self, log: LogScan) -> None:
        report = self.report
        report.log_segments = len(log.segments)
        report.log_last_sequence = log.last_sequence
        report.log_epoch = log.end.epoch if log.end else 0
        if log.torn is not None:  # L-c
            report.torn_path, report.torn_offset = log.torn.path, log.torn.offset
            report.torn_bytes = log.torn.bytes
        if log.halts:
            report.halt_sequence = log.halts[-1].sequence
            report.halt_reason = log.halts[-1].reason.decode("utf-8", "replace")

    def _rebuild(self, log: LogScan, events: EventWriter) -> Recovered:
        report = self.report
        if events.last_sequence > log.last_sequence:  # E-d
            raise BeyondLog("the event segments", events.last_sequence, log.last_sequence)
        with report.step("load the checkpoint"):
            engine, definitions, found = self._load(log, events.last_sequence)
        start = found.sequence if found else 0
        next_event_number = int(engine.dump()["venue"]["events"][0]) + 1
        if events.last_sequence < start:  # E-c
            raise HistoryMissing(
                f"the event segments end at {events.last_sequence}, the oldest usable state is of {start}: "
                f"restore an older checkpoint or the events from a copy"
            )
        stored = EventReader(self.disk, self.data / "events").frames(start)
        replay = Replay(engine, definitions, events, stored, next_event_number)
        with report.step("replay the log"):
            try:
                self._replay(replay, log, start)
            except InvariantViolation as violation:  # H-c
                self._log_halt(log, violation)
                raise ReplayHalted(violation.sequence, str(violation)) from violation
        events.flush()
        with report.step("sweep the invariants"):
            engine.audit()
        with report.step("hash the state"):
            report.state_hash = engine.state_hash().hex()
        report.event_frames_compared = replay.frames_compared
        report.event_frames_appended = replay.frames_appended
        if replay.commands:
            report.replayed, report.replayed_first = replay.commands, start + 1
            report.replayed_last = start + replay.commands
        last_epoch = max(found.epoch if found else 0, replay.epoch)
        epoch = max(last_epoch, log.end.epoch if log.end else 0, *(halt.epoch for halt in log.halts), 0) + 1
        halted = bool(log.halts) and last_epoch <= log.halts[-1].epoch  # H-a
        report.sequence, report.epoch, report.halted = engine.sequence, epoch, halted
        self.lock.set_epoch(epoch)
        return Recovered(
            engine,
            definitions,
            self.lock,
            events,
            log.end,
            log.last_sequence + 1,
            replay.next_event_number,
            epoch,
            max(found.time_ns if found else 0, replay.time_ns),
            halted,
            start,
            report,
        )

    # The checkpoint.

    def _load(
        self, log: LogScan, events_last_sequence: int
    ) -> tuple[AnyEngine, Definitions, Checkpoint | None]:
        """State of the newest checkpoint that is whole, or an empty one."""
        reaches_back = not log.segments or log.first_sequence == 1
        for path in checkpoint.candidates(self.disk, self.data / "checkpoints"):
            try:
                found = checkpoint.load(self.disk, path)
                self._check_usable(found, str(path), log, events_last_sequence)
                engine, definitions = self._load_state(found, str(path))
            except (CorruptionError, StateError, InvariantViolation) as error:  # C-b, C-c
                self.report.checkpoints_skipped.append({"path": str(path), "why": str(error)})
                self.report.alerts.append(f"checkpoint {path} was skipped: {error}")
                continue
            self.report.checkpoint_path, self.report.checkpoint_sequence = str(path), found.sequence
            return engine, definitions, found
        if not reaches_back:  # C-e
            raise HistoryMissing(
                f"the log begins at sequence {log.first_sequence} and no checkpoint before it can be used: "
                f"restore a checkpoint, or the older segments, from a copy"
            )
        return self.engine_class(), Definitions(), None

    def _check_usable(self, found: Checkpoint, path: str, log: LogScan, events_last_sequence: int) -> None:
        halt = log.halts[-1] if log.halts else None
        if halt is not None and found.epoch <= halt.epoch and found.sequence >= halt.sequence:  # H-d
            what = f"taken in epoch {found.epoch}, of commands that HALT({halt.sequence}) voids"
            raise CorruptionError(path, 0, found.sequence, what, "remove the file")
        if found.sequence > log.last_sequence:  # C-d
            raise BeyondLog(path, found.sequence, log.last_sequence)
        if found.sequence > events_last_sequence:  # E-c
            what = f"younger than the event segments, which end at {events_last_sequence}"
            raise CorruptionError(path, 0, found.sequence, what, "an older checkpoint is used")

    def _load_state(self, found: Checkpoint, path: str) -> tuple[AnyEngine, Definitions]:
        sections = dict(found.sections)
        names = sections.pop(SECTION, None)
        missing = [name for name in SECTIONS if name not in sections]
        if missing or names is None:
            raise CorruptionError(
                path, 0, found.sequence, f"sections {missing or [SECTION]} missing", "remove it"
            )
        engine = self.engine_class.load(sections)
        state_hash = engine.state_hash()
        if state_hash != found.state_hash or engine.sequence != found.sequence:
            what = f"loads to state {state_hash.hex()} of sequence {engine.sequence}, not to what it says"
            raise CorruptionError(path, 0, found.sequence, what, "remove the file")
        return engine, Definitions.from_section(names)

    # The log.

    def _replay(self, replay: Replay, log: LogScan, start: int) -> None:
        total = max(0, log.last_sequence - start)
        shows = self.progress and sys.stderr.isatty()
        with tqdm(total=total, unit="cmd", unit_scale=True, desc="replay", disable=not shows) as bar:
            for count in replay.run(log.frames(start + 1)):
                bar.update(count)
        if replay.engine.sequence != log.last_sequence:
            raise HistoryMissing(
                f"replay ends at sequence {replay.engine.sequence}, the log at {log.last_sequence}"
            )

    def _log_halt(self, log: LogScan, violation: InvariantViolation) -> None:
        """Replay itself broke an invariant: the log says so from now on."""
        epoch = (log.end.epoch if log.end else 0) + 1
        writer = LogWriter(
            self.disk, self.data / "log", epoch=epoch, next_sequence=log.last_sequence + 1, end=log.end
        )
        try:
            reason = {"sequence": violation.sequence, "message": str(violation), "in": "replay"}
            writer.halt(violation.sequence, orjson.dumps(reason))
        finally:
            writer.close()


def reports(directory: Path) -> Iterator[Path]:
    """JSON reports of a `reports` directory, newest first."""
    yield from sorted(directory.glob("recovery-*.json"), reverse=True)
