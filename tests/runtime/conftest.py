"""The session's PostgreSQL, as the tests of `persistence.postgres` have it."""

from tests.postgres.conftest import dsn, postgres

__all__ = ["dsn", "postgres"]
