"""The write-ahead log: what a venue is.

frame        a batch of commands as bytes             (Cython)
segment      a file of frames
preparer     the next segment, ahead of time
syncer       the sync thread                           (Cython)
file_syncer  the same for a simulated disk
writer       group commit
reader       scan, torn tail or corruption, replay
"""

from persistence.log.reader import Frame, Halt, LogScan, TornTail, scan, sync_all
from persistence.log.segment import LogEnd
from persistence.log.writer import LogWriter

__all__ = ["Frame", "Halt", "LogEnd", "LogScan", "LogWriter", "TornTail", "scan", "sync_all"]
