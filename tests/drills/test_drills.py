"""The drills as tests: real processes, real kills, every acknowledgement checked."""

import argparse
import asyncio
import secrets
from pathlib import Path

import pytest

from api.drills import DRILLS
from api.drills.journal import Acknowledgement, Journal
from api.drills.report import DrillReport

pytestmark = pytest.mark.drill


def arguments(**changes: object) -> argparse.Namespace:
    chosen = {
        "seed": secrets.randbelow(1 << 32),
        "kills": 20,
        "traders": 24,
        "recorded": Path("../shared/data"),
    } | changes
    print(f"seed {chosen['seed']}")
    return argparse.Namespace(**chosen)


def run(name: str, data: Path, **changes: object) -> DrillReport:
    report = asyncio.run(DRILLS[name](arguments(**changes), data))
    print(report.text())
    return report


def test_twenty_kills_in_a_row_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    report = run("crash", tmp_path / "data")
    failed = [check for check in report.checks if not check.holds]
    assert not failed, failed


def test_the_demo_ends_with_nothing_lost_and_the_same_state_hash(tmp_path: Path) -> None:
    report = run("demo", tmp_path / "data")
    failed = [check for check in report.checks if not check.holds]
    assert not failed, failed


def test_a_journal_line_is_on_disk_when_record_returns(tmp_path: Path) -> None:
    line = Acknowledgement("k", "order", "alice", 201, "1-0", "NEW")
    with Journal(tmp_path / "journal") as journal:
        journal.record(line)
        assert b'"key":"k"' in (tmp_path / "journal").read_bytes()
        assert journal.acknowledgements == [line]


def test_a_report_without_checks_has_not_passed() -> None:
    report = DrillReport("none", 1, "again")
    assert not report.passed
    report.check("holds", True)
    assert report.passed
    report.check("does not hold", False)
    assert not report.passed
