"""When to try again (SPEC F4): transient errors only, six times, never at once."""

import random
from collections.abc import Iterator

PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
JITTER_S = 0.05
TRANSIENT_STATUSES = frozenset((429, 502, 503, 504))


def pauses() -> Iterator[float]:
    """Seconds to wait before each retry."""
    for pause in PAUSES_S:
        yield pause + random.random() * JITTER_S
