"""Why a venue does not come back by itself.

::

    RecoveryError
    ├── HistoryMissing   the log does not reach back to where replay would have to start
    ├── BeyondLog        a checkpoint or the event segments know more than the log holds
    ├── EventsDiffer     replay does not give the events that were released
    └── ReplayHalted     replay broke an invariant; HALT is now in the log

Damaged bytes are `persistence.errors.CorruptionError`, a second owner of the
directory is `persistence.errors.LockHeld`.
"""


class RecoveryError(Exception):
    """Root of the errors of `recovery`; the venue refuses to start."""


class HistoryMissing(RecoveryError):
    """No valid checkpoint is old enough for the log, or the events, that are there."""


class BeyondLog(RecoveryError):
    """Something was derived from commands that the log no longer holds.

    Parameters
    ----------
    what : str
        The file that knows more.
    sequence, log_sequence : int
        What it reaches, and what the log reaches.
    """

    def __init__(self, what: str, sequence: int, log_sequence: int) -> None:
        super().__init__(
            f"{what} reaches sequence {sequence}, the log ends at {log_sequence}: acknowledged commands are "
            f"gone from the log; restore its newest segment from a copy, do not delete {what}"
        )
        self.what = what
        self.sequence = sequence
        self.log_sequence = log_sequence


class EventsDiffer(RecoveryError):
    """Replay of a frame gives other events than those that were released."""

    def __init__(self, first_sequence: int, last_sequence: int, detail: str) -> None:
        super().__init__(
            f"replay of sequences {first_sequence}..{last_sequence} does not reproduce the released events: "
            f"{detail}; run the version that wrote them, or restore log and events from one copy"
        )
        self.first_sequence = first_sequence
        self.last_sequence = last_sequence


class ReplayHalted(RecoveryError):
    """Replay broke an invariant at a command that had no HALT record; it has one now."""

    def __init__(self, sequence: int, cause: str) -> None:
        super().__init__(
            f"replay broke an invariant at sequence {sequence} ({cause}); HALT was logged, "
            f"the next start restores the state before it and stays HALTED"
        )
        self.sequence = sequence
