"""What can go wrong with PostgreSQL, and which of it is worth another try.

PersistenceError
└── DatabaseError
    ├── DatabaseUnavailable    transient: gone, starting, too slow, a lost race; retried, then passed up
    ├── DatabaseRefused        it answered, and the answer will be the same next time
    ├── MigrationError         the schema is not the one this code was written for
    ├── ProjectionError
    │   ├── CursorMoved        another projector wrote; this one must stop or read the cursor anew
    │   ├── StaleEpoch         a newer engine has been here (also raised by the submissions queue)
    │   └── EventGap           the frames do not follow the cursor, or contradict the rows
    ├── QueueFull              as many submissions wait as may wait
    └── EmbeddedError
        ├── BinariesMissing    no PostgreSQL on this machine
        ├── AlreadyRunning     a live server has the data directory
        └── StartFailed        it did not come up; its last words are in the message
"""

import asyncio

import asyncpg

from persistence.errors import PersistenceError


class DatabaseError(PersistenceError):
    """Root of this package's tree."""


class DatabaseUnavailable(DatabaseError):
    """PostgreSQL could not be used just now; the same call may succeed later.

    After a commit whose answer was lost nobody knows the outcome: callers find
    out by a natural key (cursor, idempotency key) before they try again.
    """


class DatabaseRefused(DatabaseError):
    """PostgreSQL answered with an error that another try would not change."""


class MigrationError(DatabaseError):
    """The schema is not the one this code was written for."""


class ProjectionError(DatabaseError):
    """The projector may not, or cannot, write what it was given."""


class CursorMoved(ProjectionError):
    """The cursor is not where this projector left it: another one is writing."""


class StaleEpoch(ProjectionError):
    """The caller's epoch is lower than one the database has seen.

    Parameters
    ----------
    epoch, highest : int
        The caller's, and the one on record.
    """

    def __init__(self, epoch: int, highest: int) -> None:
        self.epoch = epoch
        self.highest = highest
        super().__init__(f"epoch {epoch} is over: the database has seen epoch {highest}; stop this process")

    def __reduce__(self) -> tuple[type["StaleEpoch"], tuple[int, int]]:
        return type(self), (self.epoch, self.highest)


class EventGap(ProjectionError):
    """The events do not continue what the rows say; nothing was written."""


class QueueFull(DatabaseError):
    """As many submissions wait as may wait; nothing was accepted."""


class EmbeddedError(DatabaseError):
    """The embedded server cannot be run."""


class BinariesMissing(EmbeddedError):
    """No PostgreSQL 15 or newer was found."""


class AlreadyRunning(EmbeddedError):
    """A live server has the data directory."""


class StartFailed(EmbeddedError):
    """The server did not come up."""


_TRANSIENT_STATES = (
    "08",  # connection exceptions
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "53200",  # out_of_memory
    "53300",  # too_many_connections
    "55P03",  # lock_not_available
    "57014",  # query_canceled: the statement timeout
    "57P01",  # admin_shutdown
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now
)
"""SQLSTATEs (or their class) that pass by themselves. Not here: 53100 (disk full)
and 25006 (a read-only replica), which six seconds of trying do not mend."""

_CLOSED = ("closed", "closing", "released back to the pool")


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a little later.

    asyncpg has three roots. `PostgresError` carries an SQLSTATE. A server killed
    in the middle of an answer often raises `InternalClientError`, which is
    neither of the other two. `InterfaceError` is misuse of the library, except
    when it says that the connection or the pool is gone.
    """
    if isinstance(error, DatabaseUnavailable):
        return True
    if isinstance(error, asyncpg.PostgresError):
        state = getattr(error, "sqlstate", None) or ""
        return state.startswith(_TRANSIENT_STATES)
    if isinstance(error, asyncpg.InternalClientError):
        return not isinstance(error, asyncpg.exceptions.TargetServerAttributeNotMatched)
    if isinstance(error, asyncpg.InterfaceError):
        return any(word in str(error) for word in _CLOSED)
    return isinstance(error, (OSError, asyncio.TimeoutError))


def is_database_error(error: BaseException) -> bool:
    """Whether the error came out of asyncpg or the socket beneath it."""
    return isinstance(
        error,
        (
            asyncpg.PostgresError,
            asyncpg.InternalClientError,
            asyncpg.InterfaceError,
            OSError,
            asyncio.TimeoutError,
        ),
    )


def translate(error: BaseException) -> DatabaseError:
    """Our error for one of asyncpg's; raise it `from` the original."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if is_transient(error):
        return DatabaseUnavailable(f"PostgreSQL is not available ({text})")
    return DatabaseRefused(f"PostgreSQL refused ({text})")
