"""`holdfast oracle INPUT --trades TRADES …`: recorded flow judged from the command line."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from api.flow.errors import UnusableInput
from api.flow.run import OracleResult, run_oracle

__all__ = ["OracleResult", "UnusableInput", "main", "run_oracle"]

IDENTICAL = 0
DIFFERENT = 1
UNUSABLE = 2


def main(argv: Sequence[str]) -> int:
    """Run the oracle.

    Returns
    -------
    int
        0 when all is identical, 1 when something differs, 2 when the input is unusable.
    """
    arguments = _parser().parse_args(argv)
    is_csv = arguments.input.name.endswith(".csv.zst")
    try:
        if is_csv and not (arguments.trades or arguments.book):
            raise UnusableInput(str(arguments.input), "nothing to compare with; give --trades or --book")
        result = run_oracle(
            arguments.input,
            arguments.trades,
            arguments.book,
            arguments.report_hash,
            arguments.checksum,
            twin=arguments.twin,
            rows=arguments.rows,
        )
    except UnusableInput as problem:
        print(f"holdfast oracle: {problem}", file=sys.stderr)
        return UNUSABLE
    print(result.text())
    return IDENTICAL if result.ok else DIFFERENT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="holdfast oracle",
        description="Run recorded order flow through the engine and compare it with what the exchange did.",
        epilog="Exit code: 0 identical, 1 different, 2 unusable input.",
    )
    parser.add_argument(
        "input", type=Path, help="_input.csv.zst, flash1 .parquet, mixed .bin.zst or edge_cases.json"
    )
    parser.add_argument("--trades", type=Path, help="the trades that the exchange made")
    parser.add_argument("--book", type=Path, action="append", default=[], help="book states; may be repeated")
    parser.add_argument("--report-hash", help="SHA-256 of the report, or a file of digests with names")
    parser.add_argument("--checksum", type=_hex, help="checksum of the trades after the prefill, in hex")
    parser.add_argument("--rows", type=_positive, help="only the first rows")
    parser.add_argument("--twin", action="store_true", help="run the readable twin instead of the core")
    return parser


def _hex(text: str) -> int:
    return int(text, 16)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value
