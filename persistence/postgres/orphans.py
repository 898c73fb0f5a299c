"""Ends what a killed postmaster left behind.

Its backends notice by themselves when they wait for something; one in a long
query, or a stopped one, does not, and as long as it holds the shared memory no
new server starts ("pre-existing shared memory block … still in use").  Killing
it is safe: the next start recovers from the log, as after any crash.

A process is one of them when it runs a program called `postgres` in the data
directory.  Call this only when no live postmaster has the directory.
"""

import contextlib
import os
import select
import signal
import time
from pathlib import Path

from persistence.postgres.errors import AlreadyRunning

GRACE_S = 0.1
"""For those that end by themselves: the logger writes its last lines."""


def end_orphans(directory: Path, until: float) -> None:
    """End the server processes in `directory`; on return they are gone.

    Parameters
    ----------
    until : float
        When to give up waiting, monotonic seconds.

    Raises
    ------
    AlreadyRunning
        Some do not end, though killed (the kernel keeps one that waits for a dead disk).
    """
    with contextlib.ExitStack() as opened:
        # A descriptor names one process for good; a pid may be another's a moment later.
        orphans: dict[int, int] = {}
        for pid in _processes():
            try:
                descriptor = os.pidfd_open(pid)
            except OSError:
                continue  # Gone since the listing.
            opened.callback(os.close, descriptor)
            if _serves(pid, directory):
                orphans[descriptor] = pid
        _await(orphans, GRACE_S)
        for descriptor in orphans:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _await(orphans, max(0.0, until - time.monotonic()))
        if orphans:
            pids = ", ".join(map(str, sorted(orphans.values())))
            raise AlreadyRunning(f"PostgreSQL processes {pids} of {directory} were killed and do not end")


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _serves(pid: int, directory: Path) -> bool:
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
        place = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False  # Ended, or another user's.
    # A program whose file was replaced meanwhile is called "postgres (deleted)".
    return program.split()[:1] == ["postgres"] and place == os.path.realpath(directory)


def _await(orphans: dict[int, int], timeout_s: float) -> None:
    """Drop those that end within `timeout_s`."""
    poll = select.poll()
    for descriptor in orphans:
        poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while orphans:
        ended = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        for descriptor, _ in ended:
            poll.unregister(descriptor)
            del orphans[descriptor]
        if not ended:
            return
