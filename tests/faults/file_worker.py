"""Processes that the file faults are done to: `python -m tests.faults.file_worker ROLE DIRECTORY …`.

Each prints one line when it is where the test wants it.
"""

import os
import resource
import signal
import sys
import time

from persistence.errors import LogFailed
from persistence.events import EventWriter
from persistence.log import LogWriter, scan
from persistence.storage import Disk
from tests.unit.persistence.support import some_events, stamped


def say(text: object) -> None:
    print(text, flush=True)


def hold(directory: str) -> None:
    """Hold the lock until killed; a forked and an executed child outlive the holder."""
    lock = Disk().lock(f"{directory}/lock", epoch=9)
    if (forked := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    executed = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")
    say(f"{os.getpid()} {forked} {executed}")
    time.sleep(60)
    lock.release()


def fill(directory: str, limit: str) -> None:
    """Append until the log fails; then say what was durable and whether it stays failed."""
    if limit != "0":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    disk = Disk()
    end = scan(disk, directory).end
    first = end.last_sequence + 1 if end else 1
    epoch = end.epoch + 1 if end else 1
    writer = LogWriter(disk, directory, epoch=epoch, next_sequence=first, end=end, segment_bytes=1 << 20)
    if limit != "0":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    sequence = first
    try:
        for _ in range(10_000):
            writer.append(stamped(sequence, 20), b"", 1)
            sequence += 20
            writer.commit()
            writer.wait(sequence - 1)
    except LogFailed as error:
        say(f"failed {writer.durable_sequence} {sequence - 1} {error}")
    again = 0
    for attempt in (writer.collect, writer.commit, writer.close):
        try:
            attempt()
        except LogFailed:
            again += 1
    say(f"again {again}")


def log(directory: str) -> None:
    """Write frames, saying each durable sequence, until killed."""
    disk = Disk()
    end = scan(disk, directory).end
    sequence = end.last_sequence + 1 if end else 1
    epoch = end.epoch + 1 if end else 1
    writer = LogWriter(disk, directory, epoch=epoch, next_sequence=sequence, end=end, segment_bytes=1 << 18)
    while True:
        writer.append(stamped(sequence, 7), b"", 1)
        writer.append(stamped(sequence + 7, 3), b"", 1)
        sequence += 10
        writer.wait(sequence - 1)
        say(writer.durable_sequence)


def events(directory: str, upto: str) -> None:
    """Write event frames, three events each, in small segments, up to a sequence or until killed."""
    writer = EventWriter.open(Disk(), directory, segment_bytes=5000)
    say(writer.last_sequence)
    while writer.last_sequence < int(upto):
        first = writer.last_sequence + 1
        writer.append(1, first, first, first, writer.next_event_number, some_events(first, 3), b"text")
        writer.flush()
        writer.start()
    writer.close()


if __name__ == "__main__":
    {"hold": hold, "fill": fill, "log": log, "events": events}[sys.argv[1]](*sys.argv[2:])
