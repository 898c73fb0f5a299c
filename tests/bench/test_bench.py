"""Every bench suite runs, in small: each figure has a value and a baseline. No timing is asserted."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from bench import core, durable, gateway, recovery
from bench.measure import Figure, keep

ROOT = Path(__file__).parent.parent.parent


def check(figures: list[Figure]) -> None:
    assert figures
    for figure in figures:
        assert figure.value > 0 and figure.baseline > 0, figure
        assert figure.baseline_name and figure.line().startswith(f"| {figure.name} |")


def test_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "COMMANDS", 2_000)
    monkeypatch.setattr(core, "TWIN_COMMANDS", 500)
    check(core.run())


def test_durable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(durable, "COMMANDS", 3_000)
    monkeypatch.setattr(durable, "SINGLES", 20)
    check(durable.run())


def test_recovery(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recovery, "RESTING", 500)
    monkeypatch.setattr(recovery, "TWIN_SAMPLE", 100)
    check(recovery.run())


def test_gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(gateway, "ORDERS", 100)
    monkeypatch.setattr(gateway, "SINGLES", 5)
    check(gateway.run())


def test_figures_are_kept_with_what_they_were_taken_on(tmp_path: Path) -> None:
    keep([Figure("f", 2.0, "s", 4.0, "the other")], tmp_path / "figures.json")
    kept = orjson.loads((tmp_path / "figures.json").read_bytes())
    assert kept["figures"][0]["ratio"] == 0.5
    assert kept["environment"]["python"]


def test_an_unknown_suite_is_refused_by_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "nonsense"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no suite 'nonsense'; there are core, durable, gateway, recovery" in done.stderr
