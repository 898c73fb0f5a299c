"""Single calls, with pytest-benchmark: `.venv/bin/python -m pytest bench/micro --benchmark-enable`.

Each group holds a figure and its baseline.
"""

import zlib

import google_crc32c
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from api.decimals import to_units
from bench.core import flow_commands
from engine import Engine
from engine.reference import Engine as Twin
from persistence.crc32c import crc32c

BLOCK = bytes(range(256)) * 256


@pytest.mark.benchmark(group="crc32c of 64 KiB")
@pytest.mark.parametrize(
    "function", [crc32c, google_crc32c.value, zlib.crc32], ids=["ours", "google", "zlib crc32"]
)
def test_checksum(benchmark: BenchmarkFixture, function: object) -> None:
    assert callable(function)
    assert isinstance(benchmark(function, BLOCK), int)


@pytest.mark.benchmark(group="decimal text to ticks")
def test_decimal_text_to_ticks(benchmark: BenchmarkFixture) -> None:
    assert benchmark(to_units, "60000.01", 1, 2) == 6_000_001


@pytest.mark.benchmark(group="apply of 1,000 commands")
@pytest.mark.parametrize("kind", [Engine, Twin], ids=["core", "twin"])
def test_apply(benchmark: BenchmarkFixture, kind: type) -> None:
    setup, flow = flow_commands(1_000)

    def fresh() -> tuple[tuple[object], dict[str, object]]:
        engine = kind()
        engine.apply(setup)
        return (engine,), {}

    events = benchmark.pedantic(lambda engine: np.array(engine.apply(flow)), setup=fresh, rounds=20)
    assert len(events) > 1_000
