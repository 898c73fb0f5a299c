"""The readable twin of the core: book and ledger in plain Python, the executable specification.

Read it in the order of a command: `core` (the prelude), `trading`, `matcher`,
`ledger`, `fees`; `book` and `live_orders` hold what rests.  Every check stands
where README puts it.
"""

from engine.reference.core import Engine

__all__ = ["Engine"]
