"""Logged time as text, and the gateway's own clocks."""

import time
from datetime import UTC, datetime, timedelta

_SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_cached: tuple[int, str] = (-1, "")


def iso(time_ns: int) -> str:
    """RFC 3339 text of nanoseconds since 1970, UTC, cut to the microseconds that a row keeps.

    >>> iso(1_500_000_999)
    '1970-01-01T00:00:01.500000Z'
    """
    global _cached
    second, rest = divmod(time_ns, _SECOND)
    if _cached[0] != second:
        _cached = (second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    return f"{_cached[1]}.{rest // 1000:06d}Z"


def datetime_ns(time_: datetime) -> int:
    """Nanoseconds since 1970 of a row's time, exactly."""
    return (time_ - _EPOCH) // _MICROSECOND * 1000


def wall_ns() -> int:
    """Wall clock in nanoseconds; only for what never reaches the core."""
    return time.time_ns()
