"""The deterministic core: `apply(commands) -> events`, and nothing else reaches the state."""

from typing import TYPE_CHECKING, Any

from engine import commands
from engine.errors import EngineError, InvariantViolation, StateError, Tainted
from engine.types import COMMAND, EVENT, SECTIONS

if TYPE_CHECKING:
    from engine.core import Engine

__all__ = [
    "COMMAND",
    "EVENT",
    "SECTIONS",
    "Engine",
    "EngineError",
    "InvariantViolation",
    "StateError",
    "Tainted",
    "commands",
]


def __getattr__(name: str) -> Any:
    """Load the compiled core on first use: records and builders work without it."""
    if name == "Engine":
        from engine.core import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
