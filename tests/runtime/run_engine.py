"""Runs the engine process with an engine that breaks on purpose, for tests of HALT.

python -m tests.runtime.run_engine --break-on-quantity Q -- <arguments of the engine process>

The engine breaks an invariant at the first NEW whose quantity is Q, as a bug would: the command before it
in the same batch has been applied.
"""

import sys
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from api.runtime import logs
from api.runtime.engine_process import EngineProcess, parse
from engine import Engine
from engine.errors import InvariantViolation
from engine.types import CommandType


class BreakingEngine:
    """An engine with a planted bug."""

    quantity = 0
    audit_breaks = False

    def __init__(self, inner: Engine | None = None) -> None:
        self._inner = inner if inner is not None else Engine()

    @property
    def sequence(self) -> int:
        return self._inner.sequence

    def apply(self, commands: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        bad = np.flatnonzero((commands["type"] == CommandType.NEW) & (commands["quantity"] == self.quantity))
        if not len(bad):
            return self._inner.apply(commands)
        self._inner.apply(commands[: bad[0]])
        raise InvariantViolation("I1", int(commands[bad[0]]["sequence"]), 1, 2, 5)

    def dump(self) -> dict[str, Any]:
        return self._inner.dump()

    @classmethod
    def load(cls, arrays: Mapping[str, Any]) -> Self:
        return cls(Engine.load(arrays))

    def state_hash(self) -> bytes:
        return self._inner.state_hash()

    def audit(self) -> None:
        if self.audit_breaks and self._inner.sequence > 5:
            raise InvariantViolation("I6", self._inner.sequence, 0, 1, 1)
        self._inner.audit()


if __name__ == "__main__":
    logs.configure("engine")
    split = sys.argv.index("--")
    BreakingEngine.quantity = int(sys.argv[2]) if sys.argv[1] == "--break-on-quantity" else 0
    BreakingEngine.audit_breaks = sys.argv[1] == "--break-audit"
    sys.exit(EngineProcess(parse(sys.argv[split + 1 :]), BreakingEngine).run())
