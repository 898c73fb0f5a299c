"""The way of a command through the engine process, in order:

    1 stamp      sequence and logged time, in place          sequencer
    2 append     into the group of this turn                 log writer
    3 commit     one write, here if much has come,           log writer
                 else at the end of the turn
    4 apply      events; overlaps with the sync              core
    5 hold       until the command is durable                gate
    6 release    what is durable                             gate
    7 record     event segments                              event writer

An invariant that breaks in step 4 ends the pipeline: `Halted`.
"""

import numpy as np
import orjson

from api.runtime.errors import RuntimeFault
from api.runtime.gate import Batch, OutputGate
from api.runtime.sequencer import LoggedTime, Sequencer
from api.runtime.stamp import scan_text, types_of
from api.runtime.wire import records_buffer
from engine.errors import InvariantViolation
from engine.types import COMMAND, EVENT, CommandType, EventType, VenueState
from persistence.events import EventWriter
from persistence.log import LogWriter
from persistence.text import TextTag
from recovery.definitions import Definitions
from recovery.engine import AnyEngine, Records

COMMIT_COMMANDS = 256
"""With so many appended, the write and the sync begin before they are applied."""
CHANGES_VENUE = 1 << CommandType.START | 1 << CommandType.DRAINED | 1 << CommandType.SET_VENUE_STATE
DEFINITION = 1 << TextTag.DEFINITION


class Halted(RuntimeFault):
    """An invariant broke; nothing from `sequence` on was or will be released.

    Parameters
    ----------
    sequence : int
        N of HALT(N): the first command that is void.
    cause : str
        The violation in words.
    sound, voided : list of Batch
        Batches before N, durable, to be released a last time; and those that HALT
        voids, for their senders to be told.
    """

    def __init__(
        self, sequence: int, cause: str, sound: list[Batch[object]], voided: list[Batch[object]]
    ) -> None:
        super().__init__(f"HALT at sequence {sequence}: {cause}")
        self.sequence = sequence
        self.cause = cause
        self.sound = sound
        self.voided = voided


class Pipeline:
    """Sequencer, log, core, gate and event segments, wired.

    Parameters
    ----------
    engine : AnyEngine
        The state after `next_sequence` − 1.
    writer, events : LogWriter, EventWriter
        Both end at `next_sequence` − 1.
    next_event_number : int
        Number of the next event; dense from 1 over the venue's life.
    """

    def __init__(
        self,
        engine: AnyEngine,
        definitions: Definitions,
        writer: LogWriter,
        events: EventWriter,
        time: LoggedTime,
        *,
        next_sequence: int,
        next_event_number: int,
        epoch: int,
    ) -> None:
        self.engine = engine
        self.definitions = definitions
        self.writer = writer
        self.epoch = epoch
        self.gate: OutputGate[object] = OutputGate(next_sequence - 1)
        self.sequencer = Sequencer(next_sequence, time)
        self.venue_state = VenueState.RECOVERING
        """As released: what clients may know."""
        self.time_ns = 0
        """Logged time of the last command."""
        self.event_number = next_event_number
        self.events = events

    @property
    def sequence(self) -> int:
        """Last sequence given out."""
        return self.sequencer.next_sequence - 1

    def submit(
        self,
        records: memoryview,
        types: int,
        text: bytes,
        tags: int,
        origin: object | None,
        correlation: int,
    ) -> None:
        """Steps 1 to 5 for one frame; `records` are stamped in place and copied.

        Parameters
        ----------
        types, tags : int
            What `types_of` said of `records`, and `scan_text` of `text`.

        Raises
        ------
        Halted
        """
        first, time_ns = self.sequencer.stamp(records)
        self.time_ns = time_ns
        commands = np.frombuffer(records, COMMAND)
        writer = self.writer
        writer.append(commands, text, time_ns)
        last = self.sequencer.next_sequence - 1
        if last - writer.committed_sequence >= COMMIT_COMMANDS:
            writer.commit()
        try:
            events = self.engine.apply(commands)
        except InvariantViolation as violation:
            nothing = self.events.pack(
                self.epoch, first, last, time_ns, self.event_number, np.empty(0, EVENT), text
            )
            raise self._halt(Batch(nothing, origin, correlation), violation) from violation
        frame = self.events.pack(self.epoch, first, last, time_ns, self.event_number, events, text)
        if tags & DEFINITION:
            self.definitions.observe(first, events, text)
        batch = Batch(frame, origin, correlation)
        if types & CHANGES_VENUE:
            states = events["amount"][events["type"] == EventType.VENUE_STATE]
            batch.venue_state = int(states[-1]) if len(states) else None
        self.event_number += frame.count
        self.gate.hold(batch)

    def submit_own(self, commands: Records, text: bytes = b"") -> None:
        """A frame of the engine itself (START, DRAINED): nobody is told but the subscribers."""
        own = commands.copy()
        records = records_buffer(own)
        self.submit(records, types_of(records), text, scan_text(text, len(own)), None, 0)

    def release(self, durable_sequence: int) -> list[Batch[object]]:
        """Step 6; send what it returns, then `record` it."""
        released = self.gate.release(durable_sequence)
        for batch in released:
            if batch.venue_state is not None:
                self.venue_state = VenueState(batch.venue_state)
        return released

    def record(self, released: list[Batch[object]]) -> None:
        """Step 7: into the event segments, where projector and recovery find them."""
        events = self.events
        for batch in released:
            events.append_frame(batch.frame)
        if released:
            events.flush()

    def settle(self) -> None:
        """Make durable, release and record what the engine itself submitted; nobody is connected yet."""
        self.writer.wait(self.sequence)
        self.record(self.release(self.writer.collect()))

    def halt(self, sequence: int, violation: InvariantViolation) -> Halted:
        """Make durable what lies before `sequence`, log HALT(`sequence`); the error to raise.

        A frame that HALT cuts in two is neither sound nor void as a whole: its
        sender is told nothing, and asks again by its keys after recovery.
        """
        reason = {
            "invariant": violation.invariant,
            "sequence": violation.sequence,
            "account": violation.account,
            "asset": violation.asset,
            "delta": violation.delta,
            "message": str(violation),
        }
        self.writer.commit()
        self.writer.wait(self.sequence)
        self.writer.halt(sequence, orjson.dumps(reason))
        sound = self.release(sequence - 1)
        voided = [batch for batch in self.gate.void() if batch.first_sequence >= sequence]
        return Halted(sequence, str(violation), sound, voided)

    def _halt(self, batch: Batch[object], violation: InvariantViolation) -> Halted:
        """The frame of `batch`, not yet held, broke an invariant at one of its commands."""
        inside = batch.first_sequence <= violation.sequence <= batch.last_sequence
        self.gate.hold(batch)
        return self.halt(violation.sequence if inside else batch.first_sequence, violation)
