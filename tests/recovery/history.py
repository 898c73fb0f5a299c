"""A data directory with a history, made without a process: what recovery is tested on."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine import Engine
from engine.state import state_hash
from persistence import checkpoint
from persistence.events import EventWriter
from persistence.log import LogWriter
from persistence.storage import Disk
from recovery.definitions import SECTION, Definitions
from tests.runtime.venue import random_orders, setup_commands

FRAME = 20


@dataclass
class History:
    """Writes frames to log and events as the engine process does, one sync a frame."""

    data: Path
    epoch: int = 1
    segment_bytes: int = 64 << 20
    engine: Engine = field(default_factory=Engine)
    definitions: Definitions = field(default_factory=Definitions)
    hashes: dict[int, str] = field(default_factory=dict)

    def __enter__(self) -> "History":
        self.disk = Disk()
        for name in ("log", "events", "checkpoints"):
            self.disk.make_directory(self.data / name)
        self.writer = LogWriter(
            self.disk,
            self.data / "log",
            epoch=self.epoch,
            next_sequence=1,
            end=None,
            segment_bytes=self.segment_bytes,
        )
        self.events = EventWriter.open(self.disk, self.data / "events")
        self._number = 1
        self._random = np.random.default_rng(11)
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()
        self.events.close()

    @property
    def sequence(self) -> int:
        return self.engine.sequence

    def setup(self) -> None:
        self.frame(*setup_commands())

    def orders(self, count: int) -> None:
        """`count` commands in frames of at most 20."""
        while count:
            size = min(count, FRAME)
            self.frame(random_orders(self._random, size))
            count -= size

    def frame(
        self, commands: npt.NDArray[np.void], text: bytes = b"", *, released: bool = True
    ) -> npt.NDArray[np.void]:
        first = self.sequence + 1
        commands["sequence"] = np.arange(first, first + len(commands))
        commands["time_ns"] = 1000 * first
        self.writer.append(commands, text, 1000 * first)
        self.writer.wait(first + len(commands) - 1)
        events = self.engine.apply(commands).copy()
        self.definitions.observe(first, events, text)
        if released:
            self.events.append(self.epoch, first, self.sequence, 1000 * first, self._number, events, text)
            self.events.flush()
        self._number += len(events)
        self.hashes[self.sequence] = self.engine.state_hash().hex()
        return events

    def checkpoint(self) -> Path:
        sections = self.engine.dump()
        temporary = checkpoint.write_temporary(
            self.disk,
            self.data / "checkpoints",
            sequence=self.sequence,
            epoch=self.epoch,
            time_ns=1,
            state_hash=state_hash(sections),
            sections={**sections, SECTION: self.definitions.to_section()},
        )
        return Path(checkpoint.publish(self.disk, temporary))


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """One bit of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)
