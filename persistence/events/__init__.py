"""Numbered event segments: what the venue said, for those who resume.

frame     layout
scan      walk through a segment          (Cython)
writer    append, cut a torn tail
reader    from a sequence on; follow a live writer
"""

from persistence.events.frame import EventFrame
from persistence.events.reader import EventFollower, EventReader, retire
from persistence.events.writer import EventWriter

__all__ = ["EventFollower", "EventFrame", "EventReader", "EventWriter", "retire"]
