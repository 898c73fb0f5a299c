"""Log frames through `apply`, and their events held against those that were released.

Frames are small when traffic is light, so many are applied with one call; the
events are cut apart again by sequence.
"""

from collections.abc import Iterator

import numpy as np

from persistence.events import EventFrame, EventWriter
from persistence.log import Frame
from recovery.definitions import Definitions
from recovery.engine import AnyEngine, Records
from recovery.errors import EventsDiffer

COMMANDS_PER_APPLY = 8192
FRAMES_PER_APPLY = 1024
_DEFINITION = b"\x04\x00"


class Replay:
    """Replays frames onto an engine.

    Parameters
    ----------
    events : EventWriter
        Frames after its end are written anew.
    stored : iterator of EventFrame
        Frames up to its end, from the first that is replayed.
    """

    def __init__(
        self,
        engine: AnyEngine,
        definitions: Definitions,
        events: EventWriter,
        stored: Iterator[EventFrame],
        next_event_number: int,
    ) -> None:
        self.engine = engine
        self.next_event_number = next_event_number
        self.commands = 0
        self.frames_compared = 0
        self.frames_appended = 0
        self.epoch = 0
        self.time_ns = 0
        self._definitions = definitions
        self._events = events
        self._stored = stored
        self._stored_until = events.last_sequence

    def run(self, frames: Iterator[Frame]) -> Iterator[int]:
        """Replay all frames; yields the number of commands of each step.

        Raises
        ------
        EventsDiffer
            An event is not what was released.
        InvariantViolation
        """
        group: list[Frame] = []
        count = 0
        for frame in frames:
            group.append(frame)
            count += frame.count
            if count >= COMMANDS_PER_APPLY or len(group) >= FRAMES_PER_APPLY:
                yield self._apply(group, count)
                group, count = [], 0
        if group:
            yield self._apply(group, count)

    def _apply(self, group: list[Frame], count: int) -> int:
        commands = group[0].commands
        if len(group) > 1:
            commands = np.concatenate([frame.commands for frame in group])
        events = self.engine.apply(commands)
        lasts = np.array([frame.last_sequence for frame in group], np.uint64)
        bounds = np.searchsorted(events["sequence"], lasts, side="right").tolist()
        begin = 0
        for frame, end in zip(group, bounds, strict=True):
            self._finish(frame, events[begin:end])
            begin = end
        self.commands += count
        self.epoch = max(self.epoch, group[-1].epoch)
        self.time_ns = group[-1].time_ns
        return count

    def _finish(self, frame: Frame, events: Records) -> None:
        text = bytes(frame.text)
        if _DEFINITION in text:
            self._definitions.observe(frame.first_sequence, events, text)
        if frame.last_sequence <= self._stored_until:
            self._compare(frame, events, text)
        else:
            self._events.append(
                frame.epoch,
                frame.first_sequence,
                frame.last_sequence,
                frame.time_ns,
                self.next_event_number,
                np.ascontiguousarray(events),
                text,
            )
            self.frames_appended += 1
        self.next_event_number += len(events)

    def _compare(self, frame: Frame, events: Records, text: bytes) -> None:
        first, last = frame.first_sequence, frame.last_sequence
        stored = next(self._stored, None)
        if stored is None:
            raise EventsDiffer(first, last, "no event frame is stored for it, later ones are")
        if (stored.first_sequence, stored.last_sequence) != (first, last):
            raise EventsDiffer(
                first, last, f"the stored frame is {stored.first_sequence}..{stored.last_sequence}"
            )
        if stored.event_number != self.next_event_number:
            raise EventsDiffer(
                first, last, f"its first event is number {stored.event_number}, not {self.next_event_number}"
            )
        if stored.events.tobytes() != events.tobytes():
            raise EventsDiffer(first, last, _difference(stored.events, events))
        if bytes(stored.text) != text:
            raise EventsDiffer(first, last, "the text beside the events differs from the log's")
        self.frames_compared += 1


def _difference(stored: Records, replayed: Records) -> str:
    """The first event that differs, in words."""
    for index in range(max(len(stored), len(replayed))):
        was = stored[index] if index < len(stored) else None
        now = replayed[index] if index < len(replayed) else None
        if was is None or now is None or was != now:
            return f"event {index} of the frame was {was}, is {now}"
    return "padding differs"
