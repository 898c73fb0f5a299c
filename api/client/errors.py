"""What can go wrong for a client.

::

    ClientError
    ├── RequestRefused     a definite no, with a stable code; nothing was done
    ├── Unavailable        not possible at the moment, also after all retries; nothing was done
    ├── OutcomeUnknown     the request may have been carried out: ask with its idempotency key
    └── StreamClosed       the connection of a stream ended while a request waited
"""

from typing import Any


class ClientError(Exception):
    """Root of the errors of `api.client`."""


class RequestRefused(ClientError):
    """The venue said no.

    Attributes
    ----------
    status : int
        HTTP status.
    code : str
        Stable code of the problem.
    field, limit : str or None
        What was wrong, and what is allowed.
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail", ""))
        self.field: str | None = problem.get("field")
        self.limit: str | None = problem.get("limit")
        super().__init__(f"{status} {self.code}: {self.detail}")


class Unavailable(ClientError):
    """Transient errors until the last retry."""


class OutcomeUnknown(ClientError):
    """Whether it was done is not known.

    Attributes
    ----------
    idempotency_key : str
        `Client.order_by_key` tells with it; sending it again is safe.
    """

    def __init__(self, message: str, idempotency_key: str) -> None:
        super().__init__(f"{message}; ask again with idempotency key {idempotency_key!r}")
        self.idempotency_key = idempotency_key


class StreamClosed(ClientError):
    """The stream's connection ended; the request may have been carried out."""
