"""Checkpoints: the engine's whole state at one sequence, as opaque arrays.

layout   bytes
store    write, publish, load, retire
"""

from persistence.checkpoint.store import (
    Checkpoint,
    candidates,
    load,
    publish,
    remove_temporaries,
    retire,
    write_temporary,
)

__all__ = ["Checkpoint", "candidates", "load", "publish", "remove_temporaries", "retire", "write_temporary"]
