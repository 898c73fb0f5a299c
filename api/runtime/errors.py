"""What can go wrong between the processes of a venue.

::

    RuntimeFault
    ├── WireError       bytes on a connection that are no frame: the connection is closed
    ├── LinkDown        the engine cannot be reached, or was lost with a request in flight
    ├── Refused         the engine, or the link, declined a request: nothing was sequenced
    └── SequencerError  a timestamp or a sequence that would break the order of the log
"""


class RuntimeFault(Exception):
    """Root of the errors of `api.runtime`."""


class WireError(RuntimeFault):
    """A frame is malformed: wrong magic, version, kind, size or checksum."""


class LinkDown(RuntimeFault):
    """There is no connection to the engine.

    Parameters
    ----------
    message : str
        What happened.
    sent : bool
        True when the request had been handed to the connection: its outcome
        is unknown, only the engine that comes back can tell.  False when it
        certainly never left this process.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Refused(RuntimeFault):
    """A request was declined and nothing of it was sequenced.

    Parameters
    ----------
    code : str
        Stable, upper case (``VENUE_HALTED``, ``LINK_BUSY``, ``BAD_REQUEST``, ...).
    message : str
        For a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class SequencerError(RuntimeFault):
    """The sequencer was asked for something that would break the order of the log."""
