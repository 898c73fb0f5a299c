"""Migrations run once, in order, unedited; the constraints refuse what cannot be."""

import asyncio
from pathlib import Path

import pytest

from engine import commands as make
from persistence.postgres.errors import DatabaseRefused, MigrationError
from persistence.postgres.migrate import DIRECTORY, migrate
from persistence.postgres.pool import Pool, check_durability
from persistence.postgres.projector import Projector
from tests.postgres.venue import Venue


async def test_migrating_again_does_nothing(empty_dsn: str) -> None:
    versions = [int(path.name[:4]) for path in sorted(DIRECTORY.glob("*.sql"))]
    async with Pool(empty_dsn, minimum=0) as pool:
        assert await migrate(pool) == versions
        assert await migrate(pool) == []


async def test_of_two_migrating_at_once_one_does_the_work(empty_dsn: str) -> None:
    async with Pool(empty_dsn, minimum=0) as pool:
        done = await asyncio.gather(migrate(pool), migrate(pool))
    assert sorted(map(len, done))[0] == 0 and sum(map(len, done)) > 0


async def test_an_edited_migration_is_refused(empty_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (x integer)")
    async with Pool(empty_dsn, minimum=0) as pool:
        assert await migrate(pool, tmp_path) == [1]
        (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (x bigint)")
        with pytest.raises(MigrationError, match="edited"):
            await migrate(pool, tmp_path)


async def test_a_migration_that_fails_leaves_nothing_behind(empty_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (x integer); SELECT 1/0")
    async with Pool(empty_dsn, minimum=0) as pool:
        with pytest.raises(DatabaseRefused, match="division by zero"):
            await migrate(pool, tmp_path)
        (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (x integer)")
        assert await migrate(pool, tmp_path) == [1]


async def test_versions_newer_than_this_code_are_left_alone_and_older_ones_refused(
    empty_dsn: str, tmp_path: Path
) -> None:
    (tmp_path / "0002_b.sql").write_text("CREATE TABLE b (x integer)")
    async with Pool(empty_dsn, minimum=0) as pool:
        assert await migrate(pool, tmp_path) == [2]
        (tmp_path / "0002_b.sql").unlink()
        assert await migrate(pool, tmp_path) == []
        (tmp_path / "0001_a.sql").write_text("CREATE TABLE a (x integer)")
        with pytest.raises(MigrationError, match="before"):
            await migrate(pool, tmp_path)


async def test_a_badly_named_migration_is_refused(empty_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "1_a.sql").write_text("")
    async with Pool(empty_dsn, minimum=0) as pool:
        with pytest.raises(MigrationError, match="NNNN"):
            await migrate(pool, tmp_path)


WRONG = {
    "an order's quantities must add up": "UPDATE orders SET leaves = leaves + 1",
    "an order cannot be new with fills": "UPDATE orders SET filled = 1, leaves = leaves - 1, notional = 1",
    "an order must be in a status": "UPDATE orders SET status = 3",
    "a cancelled order has a reason": "UPDATE orders SET status = 4, cancelled = leaves, leaves = 0",
    "an order belongs to an account": "UPDATE orders SET account = 77",
    "an order belongs to a market": "UPDATE orders SET market = 77",
    "an order changes after it is made": "UPDATE orders SET updated_sequence = 1",
    "a balance is never negative": "UPDATE balances SET available = -1",
    "a hold is never negative": "UPDATE balances SET held = -1",
    "a balance is of an asset": "INSERT INTO balances VALUES (1, 77, 1, 0, 1)",
    "there is one cursor": "INSERT INTO projection SELECT false, 0, 0, 0, 0, 0, now()",
    "there is one mode": "INSERT INTO venue_mode SELECT true, 'LIVE', 0, 0, now()",
    "a mode is LIVE, QUEUE or CLOSING": "UPDATE venue_mode SET mode = 'BOTH'",
    "a trade is of orders": (
        "INSERT INTO trades (sequence, number, created_at, price, quantity, buy_order_id, sell_order_id, "
        "buy_fee, sell_fee, buy_account, sell_account, market, taker_side) "
        "VALUES (9, 1, now(), 1, 1, 77, 78, 0, 0, 1, 1, 1, 0)"
    ),
    "a transaction has a quantity": "INSERT INTO transactions VALUES (999, 'DEPOSIT', 1, 1, 0, 'x', now())",
    "a transaction id is used once": (
        "INSERT INTO transactions VALUES (998, 'DEPOSIT', 1, 1, 1, 'x', now()), "
        "(999, 'DEPOSIT', 1, 1, 1, 'x', now())"
    ),
    "a market has two assets": "UPDATE markets SET quote_asset = base_asset",
    "an outbox row holds whole events": "UPDATE outbox SET event_count = event_count + 1",
    "a queued order has a key": (
        "INSERT INTO submissions (accepted_no, account, kind, body, command, text, request, state, "
        "accepted_at) VALUES (1, 1, 'order', 0, decode(repeat('00', 128), 'hex'), '', '{}', 'QUEUED', now())"
    ),
    "what is done has an outcome": (
        "INSERT INTO submissions (accepted_no, account, kind, body, command, text, request, state, "
        "accepted_at) VALUES (1, 1, 'cancel', 0, decode(repeat('00', 128), 'hex'), '', '{}', 'DONE', now())"
    ),
}


@pytest.mark.parametrize("rule", WRONG)
async def test_constraints_refuse_rows_that_cannot_be(pool: Pool, rule: str) -> None:
    venue = Venue()
    venue.open()
    venue.apply(make.new(account=1, market=1, side=0, price=10, quantity=5))
    await Projector(pool).apply(venue.frames)
    with pytest.raises(DatabaseRefused, match=r"violates|duplicate"):
        async with pool.acquire() as connection:
            await connection.execute(WRONG[rule])


async def test_a_database_that_may_forget_is_refused(pool: Pool) -> None:
    await check_durability(pool)
    async with pool.transaction() as connection:
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    async with Pool(pool._dsn, minimum=0) as fresh:
        with pytest.raises(DatabaseRefused, match="synchronous_commit"):
            await check_durability(fresh)
