"""What the projector needs to know of a frame of the event log."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Events = NDArray[np.void]
"""EVENT[n]."""


class EventFrame(Protocol):
    """One frame: the events of the commands `first_sequence` … `last_sequence`.

    `persistence.events.EventReader` gives these. `event_number` is the number
    of its first event, `time_ns` the logged time of all its commands, `text`
    the text area with indexes relative to `first_sequence`.
    """

    @property
    def epoch(self) -> int: ...
    @property
    def first_sequence(self) -> int: ...
    @property
    def last_sequence(self) -> int: ...
    @property
    def time_ns(self) -> int: ...
    @property
    def event_number(self) -> int: ...
    @property
    def events(self) -> NDArray[Any]: ...
    @property
    def text(self) -> bytes | memoryview: ...
