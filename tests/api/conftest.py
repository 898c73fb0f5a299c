"""One venue for the session; each test trades with accounts of its own."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.venue import Trader, Venue

ENGINE_RESTART_DELAY_S = 2


@pytest.fixture(scope="session")
def venue() -> Iterator[Venue]:
    """A venue whose dead engine stays away long enough to look at."""
    directory = Path(tempfile.mkdtemp(prefix="hf-api-"))
    running = Venue(
        directory / "data", "--engine-restart-delay", str(ENGINE_RESTART_DELAY_S), "--crash-limit", "1000"
    )
    yield running
    code = running.stop()
    shutil.rmtree(directory)
    assert code == 0


@pytest.fixture
def trader(venue: Venue) -> Trader:
    """An account with 1,000,000 USDT and 1,000 ETH."""
    return venue.trader(USDT="1000000", ETH="1000")


@pytest.fixture
def other(venue: Venue) -> Trader:
    """Another one."""
    return venue.trader(USDT="1000000", ETH="1000")


@pytest.fixture(autouse=True)
def clean_books(venue: Venue) -> Iterator[None]:
    """No order of a test meets those of another: all books are empty after it."""
    made: list[Trader] = []
    original = venue.trader

    def trader(**funds: str) -> Trader:
        made.append(original(**funds))
        return made[-1]

    venue.trader = trader  # type: ignore[method-assign]
    yield
    venue.trader = original  # type: ignore[method-assign]
    venue.wait_open()
    for each in made:
        each.call("DELETE", "/v1/orders")
