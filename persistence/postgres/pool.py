"""Connections: how many, how long, and what is tried again.

    limit              figure     clause
    connections        5 … 20     F9
    idle closed after  300 s      F9
    connect            0.5 s      F6
    a statement        5 s        F6
    acquire            30 s       F9
    retries            6, after 100, 200, 400, 800, 1600, 3200 ms, each + 0–50 ms    F4

`Pool.run` is where retries are: it is the outermost caller. What is inside it
must be safe to do twice: one transaction, whose outcome after a lost commit is
found by a natural key.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import asyncpg
import orjson
import stamina
import structlog

from persistence.postgres.errors import (
    DatabaseError,
    DatabaseRefused,
    DatabaseUnavailable,
    is_database_error,
    is_transient,
    translate,
)

CONNECTIONS_MIN = 5
CONNECTIONS_MAX = 20
IDLE_S_MAX = 300.0
CONNECT_S_MAX = 0.5
STATEMENT_S_MAX = 5.0
ACQUIRE_S_MAX = 30.0

RETRIES = 6
RETRY_FIRST_S = 0.1
RETRY_LAST_S = 3.2
RETRY_JITTER_S = 0.05

_SERVER_SETTINGS = {
    "application_name": "holdfast",
    # Every statement here is written for an index. A plan made for the values at hand may choose to read
    # a table whole while it is small or not yet analysed, and asyncpg would keep using it.
    "plan_cache_mode": "force_generic_plan",
}

_log = structlog.get_logger(__name__)

T = TypeVar("T")
Connection: TypeAlias = asyncpg.pool.PoolConnectionProxy


class Pool:
    """A pool that opens on first use and speaks this package's errors.

    Parameters
    ----------
    dsn : str
        Where the database is.
    minimum, maximum : int
        Connections kept and allowed.
    statement_s : float
        Timeout of a statement.

    Notes
    -----
    Making one costs nothing and never fails, so that a process can start while
    its database is down.
    """

    def __init__(
        self,
        dsn: str,
        *,
        minimum: int = CONNECTIONS_MIN,
        maximum: int = CONNECTIONS_MAX,
        statement_s: float = STATEMENT_S_MAX,
    ) -> None:
        if not 0 <= minimum <= maximum or maximum < 1:
            raise ValueError(f"a pool of {minimum} to {maximum} connections cannot work")
        self._dsn = dsn
        self._minimum = minimum
        self._maximum = maximum
        self._statement_s = statement_s
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def open(self) -> None:
        """Connect now rather than on first use.

        Raises
        ------
        DatabaseUnavailable, DatabaseRefused
            It could not be reached, or does not want us.
        """
        async with self._translated():
            await self._opened(ACQUIRE_S_MAX)

    async def close(self) -> None:
        """Close all connections, waiting up to 5 s for those in use."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), 5.0)
            except TimeoutError:
                pool.terminate()

    async def __aenter__(self) -> "Pool":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def use(self) -> float:
        """Share of the connections that are in use, 0 to 1."""
        if self._pool is None:
            return 0.0
        busy = int(self._pool.get_size()) - int(self._pool.get_idle_size())
        return busy / self._maximum

    @asynccontextmanager
    async def acquire(self, timeout_s: float = ACQUIRE_S_MAX) -> AsyncIterator[Connection]:
        """A connection, for the length of the block; errors inside come out translated."""
        async with self._translated():
            pool = await self._opened(timeout_s)
            connection = await pool.acquire(timeout=timeout_s)
            try:
                yield connection
            except BaseException as error:
                await _after_failure(connection, error, lambda: pool.release(connection))
                raise
            try:
                await pool.release(connection)
            except Exception as error:
                if not is_database_error(error):
                    raise
                # What was asked for is done and committed; the pool has thrown the connection away.
                _log.warning("connection_lost_on_release", error=repr(error))

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[Connection]:
        """A connection in a transaction (`isolation=`, `readonly=`); committed at the end of the block."""
        async with self.acquire() as connection:
            transaction = connection.transaction(**options)
            await transaction.start()
            try:
                yield connection
            except BaseException as error:
                await _after_failure(connection, error, transaction.rollback)
                raise
            await transaction.commit()

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, retries: int = RETRIES) -> T:
        """Do `work(connection)` in one transaction; again after a transient error.

        Raises
        ------
        DatabaseUnavailable
            Still transient after the last try. The outcome of a lost commit is unknown.
        DatabaseRefused
            Not transient; not tried again.
        """

        async def once() -> T:
            async with self.transaction() as connection:
                return await work(connection)

        return await retry(once, retries=retries)

    async def _opened(self, timeout_s: float) -> asyncpg.Pool:
        async with self._opening:
            if self._closed:
                raise DatabaseRefused("the pool is closed")
            if self._pool is None:
                self._pool = await asyncio.wait_for(
                    asyncpg.create_pool(
                        self._dsn,
                        min_size=self._minimum,
                        max_size=self._maximum,
                        max_inactive_connection_lifetime=IDLE_S_MAX,
                        timeout=CONNECT_S_MAX,
                        command_timeout=self._statement_s,
                        init=_prepare_connection,
                        server_settings=_SERVER_SETTINGS,
                    ),
                    timeout_s,
                )
            return self._pool

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except DatabaseError:
            raise
        except Exception as error:
            if not is_database_error(error):
                raise
            raise translate(error) from error


async def retry(work: Callable[[], Awaitable[T]], *, retries: int = RETRIES) -> T:
    """Await `work()`, again after each transient error with F4's pauses."""
    async for attempt in stamina.retry_context(
        on=_worth_another_try,
        attempts=retries + 1,
        timeout=None,
        wait_initial=RETRY_FIRST_S,
        # stamina caps pause and jitter together.
        wait_max=RETRY_LAST_S + RETRY_JITTER_S,
        wait_jitter=RETRY_JITTER_S,
        wait_exp_base=2,
    ):
        with attempt:
            return await work()
    raise DatabaseUnavailable("not tried at all")


async def _after_failure(
    connection: Connection, error: BaseException, cleanup: Callable[[], Awaitable[None]]
) -> None:
    """Clean up after `error` so that it, and not a failing clean-up, is what the caller hears.

    A server that dies between two statements leaves asyncpg believing that an
    operation is in progress: then neither ROLLBACK nor the pool's reset can run,
    and both raise misuse errors. Closing the socket rolls back as well.
    """
    try:
        await cleanup()
    except Exception as failure:
        if not is_database_error(failure):
            raise
        with suppress(asyncpg.InterfaceError):  # It may be back in the pool, which has closed it.
            connection.terminate()
        error.add_note(f"clean-up failed too ({failure!r}); the connection was closed")


def _worth_another_try(error: Exception) -> bool:
    return is_transient(error)


async def _prepare_connection(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda raw: orjson.loads(memoryview(raw)[1:]),
        format="binary",
    )


async def check_durability(pool: Pool) -> None:
    """Refuse a database that may forget what it committed (D10).

    Raises
    ------
    DatabaseRefused
        `fsync`, `full_page_writes`, `synchronous_commit` or data checksums are off.
    """
    async with pool.acquire() as connection:
        for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
            value = await connection.fetchval("SELECT current_setting($1)", name)
            if value == "off":
                raise DatabaseRefused(f"PostgreSQL runs with {name} = {value}; turn it on")
