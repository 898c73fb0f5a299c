"""The expected report hash: given as hex digits, or as a file of digests with names."""

import re
from pathlib import Path

from api.flow.errors import UnusableInput

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def expected_report_hash(given: str, flow_name: str) -> str:
    """The digest that the report of `flow_name` must have.

    Parameters
    ----------
    given : str
        64 hex digits, or the path of a file with lines `digest  name`; the row
        counts whose name begins with that of the flow.

    Raises
    ------
    UnusableInput
        Neither, or no row fits.
    """
    if _SHA256.fullmatch(given):
        return given.lower()
    try:
        rows = [line.split() for line in Path(given).read_text("ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as problem:
        raise UnusableInput(given, f"neither a SHA-256 nor a file of them: {problem}") from problem
    stem = flow_name.split(".")[0]
    for row in rows:
        if len(row) == 2 and row[1].startswith(stem) and _SHA256.fullmatch(row[0]):
            return row[0].lower()
    raise UnusableInput(given, f"no digest for {stem}")
