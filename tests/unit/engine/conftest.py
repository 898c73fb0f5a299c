"""Each rule is tried on the core and on the twin: `open_venue` builds either."""

import pytest

from engine.core import Engine
from engine.reference import Engine as Twin
from tests.unit.engine.venue import Maker, Venue


@pytest.fixture(params=[Engine, Twin], ids=["core", "twin"])
def kind(request: pytest.FixtureRequest) -> type:
    """The engine under test."""
    chosen: type = request.param
    return chosen


@pytest.fixture
def open_venue(kind: type) -> Maker:
    """Builds venues with chosen fees and units."""
    return lambda **fields: Venue(kind, **fields)


@pytest.fixture
def venue(kind: type) -> Venue:
    """A venue without fees whose accounts have FUNDS of both assets."""
    return Venue(kind).fund()
