"""Numbered event segments: what the venue said, for those who resume.

frame     layout, read
arena     frames built in memory        (Cython)
scan      walk through a segment        (Cython)
spooler   the thread that writes        (Cython)
writer    append, cut a torn tail
reader    from a sequence on; follow a live writer
"""

from persistence.events.arena import PackedFrame
from persistence.events.frame import EventFrame
from persistence.events.reader import EventFollower, EventReader, retire
from persistence.events.writer import EventWriter

__all__ = ["EventFollower", "EventFrame", "EventReader", "EventWriter", "PackedFrame", "retire"]
