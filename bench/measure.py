"""Figures beside their baselines: a figure without one, from the same run, is not kept."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).parent.parent


@dataclass(slots=True)
class Figure:
    """One measured value; `ratio` is value / baseline, both of this run."""

    name: str
    value: float
    unit: str
    baseline: float
    baseline_name: str
    goal: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return self.value / self.baseline if self.baseline else float("nan")

    def line(self) -> str:
        details = ", ".join(f"{name} {show(value)}" for name, value in self.detail.items())
        return (
            f"| {self.name} | {show(self.value)} {self.unit} | {show(self.baseline)} ({self.baseline_name}) "
            f"| {self.ratio:.3g} | {self.goal} | {details} |"
        )


HEADER = "| figure | value | baseline | ratio | goal | detail |\n|---|---|---|---|---|---|"


def show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def percentiles(samples: Iterable[float], *points: float) -> list[float]:
    """The values at `points` (0–100) of `samples`, nearest rank."""
    ordered = sorted(samples)
    return [ordered[min(len(ordered) - 1, int(len(ordered) * point / 100))] for point in points]


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def environment() -> dict[str, Any]:
    """What the figures were taken on; the commit says of what."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    model = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "commit": commit,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "processor": model,
        "cores": os.cpu_count(),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def keep(figures: list[Figure], path: Path) -> None:
    """Write the figures with their environment as JSON."""
    body = {"environment": environment(), "figures": [asdict(f) | {"ratio": f.ratio} for f in figures]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2))
