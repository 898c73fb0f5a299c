"""What a restart did, for a machine (JSON) and for a person (text)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from persistence.storage import AnyDisk


@dataclass(slots=True)
class RecoveryReport:
    """Filled step by step by `recovery.restart.recover`.

    Attributes
    ----------
    replayed, replayed_first, replayed_last : int
        How many commands were replayed, and which; zeros when none was.
    torn_bytes : int
        Bytes of the last, unfinished write that were cut; never acknowledged.
    alerts : list of str
        What an operator should look at although the venue came back.
    """

    data: str
    started_at: float = field(default_factory=time.time)
    result: str = "RECOVERING"
    log_segments: int = 0
    log_last_sequence: int = 0
    log_epoch: int = 0
    torn_path: str = ""
    torn_offset: int = 0
    torn_bytes: int = 0
    halt_sequence: int = 0
    halt_reason: str = ""
    halted: bool = False
    checkpoint_path: str = ""
    checkpoint_sequence: int = 0
    checkpoints_skipped: list[dict[str, str]] = field(default_factory=list)
    replayed: int = 0
    replayed_first: int = 0
    replayed_last: int = 0
    event_frames_compared: int = 0
    event_frames_appended: int = 0
    state_hash: str = ""
    sequence: int = 0
    epoch: int = 0
    alerts: list[str] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    total_s: float = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.steps.append({"step": name, "seconds": round(time.monotonic() - begun, 6)})

    def summary(self) -> str:
        """One line for the log."""
        replayed = f", {self.replayed_first}..{self.replayed_last}" if self.replayed else ""
        return (
            f"{self.result.lower()} to sequence {self.sequence} in {self.total_s:.3f} s: "
            f"checkpoint {self.checkpoint_sequence}, {self.replayed} commands replayed{replayed}, "
            f"{self.torn_bytes} bytes cut, epoch {self.epoch}"
        )

    def to_json(self) -> bytes:
        """One JSON object, indented."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)

    def to_text(self) -> str:
        """The same for a person."""
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.started_at))
        checkpoint = f"{self.checkpoint_path} (sequence {self.checkpoint_sequence})"
        replayed = f"{self.replayed} commands, {self.replayed_first}..{self.replayed_last}"
        torn = f"{self.torn_bytes} bytes at offset {self.torn_offset} of {self.torn_path}"
        lines = [
            f"Recovery of {self.data}, {when}: {self.result}",
            "",
            f"  log         {self.log_segments} segments to sequence {self.log_last_sequence}, "
            f"epoch {self.log_epoch}",
            f"  torn tail   {torn if self.torn_bytes else 'none'}",
            f"  checkpoint  {checkpoint if self.checkpoint_path else 'none: replay from genesis'}",
            f"  replayed    {replayed if self.replayed else 'nothing'}",
            f"  events      {self.event_frames_compared} frames compared and equal, "
            f"{self.event_frames_appended} written anew",
            f"  state       sequence {self.sequence}, hash {self.state_hash}, new epoch {self.epoch}",
        ]
        if self.halt_sequence:
            state = "stays HALTED until an operator resumes" if self.halted else "resumed since"
            lines.append(f"  halt        at sequence {self.halt_sequence}: {self.halt_reason}; {state}")
        lines += [f"  skipped     {skip['path']}: {skip['why']}" for skip in self.checkpoints_skipped]
        lines += [f"  ALERT       {alert}" for alert in self.alerts]
        lines.append("")
        lines += [f"  {step['seconds']:10.4f} s  {step['step']}" for step in self.steps]
        lines.append(f"  {self.total_s:10.4f} s  in all")
        return "\n".join(lines) + "\n"

    def save(self, disk: AnyDisk, directory: Path) -> Path:
        """Write both forms into `directory`; the path of the JSON."""
        disk.make_directory(directory)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self.started_at))
        name = f"recovery-{stamp}-{self.epoch:06d}"
        path = directory / f"{name}.json"
        disk.write_atomic(path, self.to_json())
        disk.write_atomic(directory / f"{name}.txt", self.to_text().encode())
        return path
