"""Brings the schema up to date, once, in order.

`migrations/NNNN_name.sql`, each run in a transaction of its own together with
its row in `schema_migrations` (version, name, checksum). An advisory lock makes
a second process wait. A file that was applied may never change: its checksum is
compared at every start. Versions newer than this code knows are left alone: the
version before must be able to live with them (H4).
"""

import hashlib
import re
from pathlib import Path

from persistence.postgres.errors import MigrationError
from persistence.postgres.pool import Connection, Pool

DIRECTORY = Path(__file__).with_name("migrations")
LOCK = 0x484F4C4446415354
"""`HOLDFAST` in ASCII."""
MIGRATION_S_MAX = 600.0

_NAME = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql\Z")


async def migrate(pool: Pool, directory: Path = DIRECTORY) -> list[int]:
    """Apply what is missing; the versions applied now.

    Raises
    ------
    MigrationError
        A file's name is not understood, two have one version, or an applied one was edited.
    """
    files = _files(directory)
    async with pool.acquire() as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK, timeout=MIGRATION_S_MAX)
        try:
            return await _apply(connection, files)
        finally:
            if not connection.is_closed():
                await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)


async def _apply(connection: Connection, files: dict[int, Path]) -> list[int]:
    await connection.execute(
        """CREATE TABLE IF NOT EXISTS schema_migrations (
               version integer PRIMARY KEY, name text NOT NULL, checksum bytea NOT NULL,
               applied_at timestamptz NOT NULL DEFAULT now())"""
    )
    rows = await connection.fetch("SELECT version, checksum FROM schema_migrations")
    applied = {row["version"]: row["checksum"] for row in rows}
    now: list[int] = []
    for version, path in sorted(files.items()):
        text = path.read_bytes()
        checksum = hashlib.sha256(text).digest()
        if version in applied:
            if applied[version] != checksum:
                raise MigrationError(
                    f"{path.name} was edited after it was applied; restore it, add a new migration"
                )
            continue
        if version < max(applied, default=0):
            raise MigrationError(f"{path.name} comes before a migration that is already applied")
        async with connection.transaction():
            await connection.execute(text.decode(), timeout=MIGRATION_S_MAX)
            await connection.execute(
                "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                version,
                path.name,
                checksum,
            )
        now.append(version)
    return now


def _files(directory: Path) -> dict[int, Path]:
    files: dict[int, Path] = {}
    for path in sorted(directory.glob("*.sql")):
        match = _NAME.match(path.name)
        if match is None:
            raise MigrationError(f"{path.name} is not named NNNN_name.sql")
        version = int(match.group(1))
        if version in files:
            raise MigrationError(f"{path.name} and {files[version].name} have the same version")
        files[version] = path
    return files
