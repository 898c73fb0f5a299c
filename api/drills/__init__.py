"""Drills: break the venue on purpose, from outside, and prove what it promised.

`holdfast drill NAME [--seed S]` runs one, prints its report, keeps it under
`reports/`, and exits 0 if every check holds, else 1.  They live in `api` because
they drive the venue as its clients do.

| drill | what it does |
|---|---|
| crash | SIGKILLs the engine at random moments under load, again and again, on one data directory |
| demo | deposit → trade → kill -9 → PENDING_SUBMISSION → recovery → drained → reconcile |
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from api.drills.crash import crash
from api.drills.demo import demo
from api.drills.report import DrillReport

Drill = Callable[[argparse.Namespace, Path], Coroutine[Any, Any, DrillReport]]

DRILLS: dict[str, Drill] = {"crash": crash, "demo": demo}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=sorted(DRILLS))
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, printed")
    parser.add_argument("--data", type=Path, default=None, help="data directory (default: a temporary one)")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="where the report is kept")
    parser.add_argument("--kills", type=int, default=20, help="crash: how many times")
    parser.add_argument("--traders", type=int, default=24, help="concurrent clients")
    parser.add_argument("--recorded", type=Path, default=Path("../shared/data"), help="recorded flow, if any")


def run(arguments: argparse.Namespace) -> int:
    """Run one drill; the exit code."""
    if arguments.seed is None:
        arguments.seed = secrets.randbelow(1 << 32)
    print(f"drill {arguments.name}, seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="holdfast-drill-") as temporary:
        report = asyncio.run(DRILLS[arguments.name](arguments, arguments.data or Path(temporary) / "data"))
    path = report.keep(arguments.reports)
    print(report.text())
    print(f"kept as {path}")
    return 0 if report.passed else 1
