"""What is tried again, how often, and what comes out when it is of no use."""

import asyncio
from typing import Any

import asyncpg
import pytest

from persistence.postgres import pool as pool_module
from persistence.postgres.embedded import EmbeddedPostgres
from persistence.postgres.errors import DatabaseRefused, DatabaseUnavailable, is_transient
from persistence.postgres.pool import Pool, retry


def postgres_error(state: str) -> asyncpg.PostgresError:
    return asyncpg.PostgresError.new({"C": state, "M": "x"})


TRANSIENT = [
    *map(postgres_error, ["08006", "40001", "40P01", "57P01", "57P03", "57014", "53300", "55P03"]),
    asyncpg.InternalClientError("cannot switch to state 21"),
    asyncpg.InterfaceError("connection is closed"),
    ConnectionRefusedError(),
    FileNotFoundError("socket"),
    TimeoutError(),
]
PERMANENT = [
    *map(postgres_error, ["23505", "42601", "42P01", "22012", "53100", "25006", "28000"]),
    asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
    asyncpg.exceptions.DataError("invalid input"),
    ValueError("ours"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_what_passes_by_itself_is_transient(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_what_will_be_the_same_next_time_is_not(error: Exception) -> None:
    assert not is_transient(error)


async def test_a_transient_error_is_tried_again_six_times_with_doubling_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        await retry(work)
    assert calls == 7
    for pause, expected in zip(pauses, (0.1, 0.2, 0.4, 0.8, 1.6, 3.2), strict=True):
        assert expected <= pause <= expected + 0.05


async def test_a_permanent_error_is_not_tried_again() -> None:
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        raise DatabaseRefused("no")

    with pytest.raises(DatabaseRefused):
        await retry(work)
    assert calls == 1


async def test_a_pool_can_be_made_while_the_database_is_down(tmp_path: Any) -> None:
    async with Pool(f"postgresql://x@/postgres?host={tmp_path}") as pool:
        with pytest.raises(DatabaseUnavailable):
            await pool.open()
        assert pool.use == 0.0


async def test_a_failed_block_is_rolled_back_and_its_own_error_comes_out(pool: Pool) -> None:
    with pytest.raises(ZeroDivisionError):
        async with pool.transaction() as connection:
            await connection.execute("UPDATE venue_mode SET accepted_no = 9")
            raise ZeroDivisionError
    assert pool.use == 0.0, "the connection was not given back"
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT accepted_no FROM venue_mode") == 0


async def test_a_server_killed_inside_a_transaction_is_a_transient_error(
    postgres: EmbeddedPostgres, dsn: str
) -> None:
    async with Pool(dsn, minimum=0) as pool:
        with pytest.raises(DatabaseUnavailable):
            async with pool.transaction() as connection:
                await connection.execute("UPDATE venue_mode SET accepted_no = 9")
                postgres.kill()
                postgres.start()
                await asyncio.sleep(0.05)
                await connection.copy_records_to_table(
                    "outbox_consumers", records=[("a", 1)], columns=["name", "event_number"]
                )
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT accepted_no FROM venue_mode") == 0


async def test_a_statement_that_takes_too_long_is_given_up(dsn: str) -> None:
    async with Pool(dsn, minimum=0, statement_s=0.05) as pool:
        with pytest.raises(DatabaseUnavailable):
            async with pool.acquire() as connection:
                await connection.execute("SELECT pg_sleep(5)")


def test_the_figures_are_those_of_the_specification() -> None:
    assert (pool_module.CONNECTIONS_MIN, pool_module.CONNECTIONS_MAX) == (5, 20)
    assert (pool_module.STATEMENT_S_MAX, pool_module.CONNECT_S_MAX) == (5.0, 0.5)
