"""Where the files of a data directory are, for all processes of a venue.

::

    DIR/lock                 kernel lock of the engine
    DIR/supervisor.lock      kernel lock of the supervisor
    DIR/log  events  checkpoints  postgres  reports
    DIR/run/engine.sock      the engine's socket
    DIR/run/<process>.json   what each process says of itself
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import orjson

SOCKET_PATH_BYTES_MAX = 100
"""The kernel takes 107; a margin for names beside it."""


def run_directory(data: Path) -> Path:
    """`DIR/run`, created when missing, for this user alone."""
    directory = data / "run"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory


def engine_socket(data: Path) -> Path:
    """The engine's socket.

    The kernel bounds a socket's path.  When the one in `DIR/run` would be too
    long, a directory under the temporary directory takes its place; its name
    is a digest of DIR, so that every process finds it without asking.
    """
    path = data.resolve() / "run" / "engine.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    digest = hashlib.blake2b(os.fsencode(data.resolve()), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}-{digest}" / "engine.sock"


def write_status(path: Path, content: dict[str, Any]) -> None:
    """Replace a status file at once, without a sync: it says what is, and means nothing after a crash."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
