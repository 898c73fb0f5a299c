"""Sequence and logged time: the only two things that enter a command on its way.

Logged time never falls (SPEC M10).  It advances by elapsed monotonic time and is
slewed to the wall clock by at most one part in 200, so a wall clock that steps
back an hour makes logged time slow, never negative.  A distance of more than
one second between the two is told once, when it opens.
"""

import logging

from api.runtime.errors import SequencerError
from api.runtime.stamp import stamp
from persistence.storage import AnyClock

SLEW_DIVISOR = 200
STEP_ALERT_NS = 1_000_000_000

_log = logging.getLogger("holdfast.sequencer")


class LoggedTime:
    """The clock of the log.

    Parameters
    ----------
    clock : AnyClock
        Wall and monotonic time of the machine.
    last_ns : int
        Logged time of the last command in the log; it starts there or at the wall clock,
        whichever is later.
    """

    def __init__(self, clock: AnyClock, last_ns: int) -> None:
        self._clock = clock
        self._monotonic = clock.monotonic_ns()
        self._now = max(last_ns, clock.wall_ns())
        self._stepped = False

    def now_ns(self) -> int:
        """Logged time; never below an earlier answer."""
        monotonic = self._clock.monotonic_ns()
        elapsed = monotonic - self._monotonic
        if elapsed < 0:
            raise SequencerError(f"the monotonic clock fell by {-elapsed} ns")
        self._monotonic = monotonic
        self._now += elapsed
        distance = self._clock.wall_ns() - self._now
        slew = elapsed // SLEW_DIVISOR
        self._now += max(-slew, min(slew, distance))
        if abs(distance) > STEP_ALERT_NS:
            if not self._stepped:
                _log.warning("wall clock and logged time are %.3f s apart; slewing", distance / 1e9)
            self._stepped = True
        else:
            self._stepped = False
        return self._now


class Sequencer:
    """Gives each command the next sequence.

    Parameters
    ----------
    next_sequence : int
        Of the first command to come, at least 1.
    """

    def __init__(self, next_sequence: int, time: LoggedTime) -> None:
        if next_sequence < 1:
            raise SequencerError(f"sequences start at 1, not at {next_sequence}")
        self.next_sequence = next_sequence
        self._time = time

    def stamp(self, records: memoryview) -> tuple[int, int]:
        """Stamp COMMAND records in place, with one time for all: their first sequence and that time."""
        first = self.next_sequence
        time_ns = self._time.now_ns()
        self.next_sequence = first + stamp(records, first, time_ns)
        return first, time_ns
