"""A real PostgreSQL for the session, and a migrated database of its own for each test."""

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from persistence.postgres.embedded import EmbeddedPostgres
from persistence.postgres.errors import BinariesMissing
from persistence.postgres.migrate import migrate
from persistence.postgres.pool import Pool

_numbers = itertools.count(1)
_TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The server. Tests may kill and restart it: each has its own database."""
    directory = Path(tempfile.mkdtemp(prefix="hf-pg-"))
    try:
        server = EmbeddedPostgres(directory / "data", directory / "socket")
    except BinariesMissing as error:
        pytest.skip(str(error))
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
async def empty_dsn(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A new database without a schema."""
    name = await _create(postgres, "template0")
    yield _dsn(postgres, name)
    await _drop(postgres, name)


@pytest.fixture
async def dsn(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A new database with the schema."""
    connection = await asyncpg.connect(postgres.dsn)
    exists = await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", _TEMPLATE)
    await connection.close()
    if not exists:
        await _create(postgres, "template0", _TEMPLATE)
        async with Pool(_dsn(postgres, _TEMPLATE), minimum=0) as pool:
            await migrate(pool)
    name = await _create(postgres, _TEMPLATE)
    yield _dsn(postgres, name)
    await _drop(postgres, name)


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """A pool on a new database with the schema."""
    async with Pool(dsn, minimum=1, maximum=10) as opened:
        yield opened


async def _create(server: EmbeddedPostgres, template: str, name: str = "") -> str:
    name = name or f"test_{next(_numbers)}"
    connection = await asyncpg.connect(server.dsn)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    await connection.close()
    return name


async def _drop(server: EmbeddedPostgres, name: str) -> None:
    """Not left for later: recovery after a kill syncs every file there is."""
    connection = await asyncpg.connect(server.dsn)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


def _dsn(server: EmbeddedPostgres, name: str) -> str:
    return server.dsn.replace("@/postgres?", f"@/{name}?")
