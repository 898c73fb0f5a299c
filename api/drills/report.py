"""What a drill leaves behind: one report, for a person and for a program."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson


@dataclass(slots=True)
class Check:
    """One thing that had to hold, and whether it did."""

    name: str
    holds: bool
    found: str


@dataclass(slots=True)
class DrillReport:
    """The result of one run of a drill; `rerun` is the command that repeats it."""

    drill: str
    seed: int
    rerun: str
    figures: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    started_at: float = field(default_factory=time.time)

    def check(self, name: str, holds: bool, found: object = "") -> None:
        self.checks.append(Check(name, bool(holds), str(found)))

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.holds for check in self.checks)

    def text(self) -> str:
        """The report as Markdown."""
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.started_at))
        lines = [
            f"# Drill {self.drill}: {'PASSED' if self.passed else 'FAILED'}",
            "",
            f"{when}, seed {self.seed}. Again: `{self.rerun}`",
            "",
            "| figure | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in self.figures.items()),
            "",
            "| check | holds | found |",
            "|---|---|---|",
            *(f"| {c.name} | {'yes' if c.holds else '**NO**'} | {c.found} |" for c in self.checks),
            "",
        ]
        return "\n".join(lines)

    def keep(self, directory: Path) -> Path:
        """Write `<drill>-<time>.md` and `.json`; the path of the first."""
        directory.mkdir(parents=True, exist_ok=True)
        stem = f"{self.drill}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime(self.started_at))}"
        path = directory / f"{stem}.md"
        path.write_text(self.text())
        body = {
            "drill": self.drill,
            "seed": self.seed,
            "rerun": self.rerun,
            "passed": self.passed,
            "started_at": self.started_at,
            "figures": self.figures,
            "checks": [{"name": c.name, "holds": c.holds, "found": c.found} for c in self.checks],
        }
        (directory / f"{stem}.json").write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2))
        return path
