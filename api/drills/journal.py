"""What a client was told, on its own disk before it acts on it.

One JSON object a line: `{"key", "kind", "account", "code", "order_id", "status",
"filled", "trades", "sequence", "at", "queued_as"}`.  An acknowledgement counts in a drill only
if its line was synced, so that the drill's own crash loses nothing either.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson


@dataclass(slots=True)
class Acknowledgement:
    """One definite answer: the venue said that this happened, or was queued."""

    key: str
    kind: str
    account: str
    code: int
    order_id: str
    status: str
    filled: str = "0"
    trades: list[str] = field(default_factory=list)
    sequence: int = 0
    at: float = 0.0
    queued_as: str = ""


class Journal:
    """An append-only file of acknowledgements, synced line by line."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.acknowledgements: list[Acknowledgement] = []

    def record(self, acknowledgement: Acknowledgement) -> None:
        """Append and sync; on return the line is on disk."""
        line = orjson.dumps(asdict(acknowledgement)) + b"\n"
        if os.write(self._fd, line) != len(line):
            raise OSError(f"short write to the journal of {acknowledgement.account}")
        os.fdatasync(self._fd)
        self.acknowledgements.append(acknowledgement)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
