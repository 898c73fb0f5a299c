"""The output gate: nothing leaves before its command is durable (SPEC D1).

    apply ──hold(batch)──▶ [ batch, batch, … ] ──release(durable sequence)──▶ answers, feed, event segments

Applying overlaps with the sync; the gate is where the two meet again.
"""

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from api.runtime.errors import SequencerError
from persistence.events import PackedFrame

HELD_BYTES_MAX = 256 << 20
"""Above this the engine stops reading its sockets until something is released."""

Origin = TypeVar("Origin")


@dataclass(slots=True)
class Batch(Generic[Origin]):
    """The events of one log frame, and who asked for it (None: the engine itself)."""

    frame: PackedFrame
    """First and last sequence, events, text: as they go to disk and to clients."""
    origin: Origin | None
    correlation: int
    venue_state: int | None = None
    """The venue's state after it, where it changed."""

    @property
    def first_sequence(self) -> int:
        return self.frame.first_sequence

    @property
    def last_sequence(self) -> int:
        return self.frame.last_sequence

    @property
    def count(self) -> int:
        """Commands of the frame."""
        return self.frame.last_sequence - self.frame.first_sequence + 1


class OutputGate(Generic[Origin]):
    """Holds batches in sequence order."""

    def __init__(self, released_sequence: int) -> None:
        self._held: deque[Batch[Origin]] = deque()
        self._bytes = 0
        self.released_sequence = released_sequence
        """Everything up to here has left."""
        self.held_sequence = released_sequence
        """Last sequence that was handed to the gate."""

    def __len__(self) -> int:
        return len(self._held)

    @property
    def is_full(self) -> bool:
        return self._bytes >= HELD_BYTES_MAX

    def hold(self, batch: Batch[Origin]) -> None:
        """Keep a batch until its last command is durable.

        Raises
        ------
        SequencerError
            It does not follow the one before.
        """
        frame = batch.frame
        if frame.first_sequence != self.held_sequence + 1:
            raise SequencerError(
                f"batch {frame.first_sequence}..{frame.last_sequence} does not follow {self.held_sequence}"
            )
        self._held.append(batch)
        self._bytes += len(frame)
        self.held_sequence = frame.last_sequence

    def release(self, durable_sequence: int) -> list[Batch[Origin]]:
        """The batches whose commands are all durable, in order."""
        held = self._held
        released: list[Batch[Origin]] = []
        while held and held[0].frame.last_sequence <= durable_sequence:
            batch = held.popleft()
            self._bytes -= len(batch.frame)
            self.released_sequence = batch.frame.last_sequence
            released.append(batch)
        return released

    def void(self) -> list[Batch[Origin]]:
        """Take out everything that is held; none of it may be released."""
        held = list(self._held)
        self._held.clear()
        self._bytes = 0
        self.held_sequence = self.released_sequence
        return held
