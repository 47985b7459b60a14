"""Fixtures of the scores' tests."""

import pytest
from tiny_world import DEVICES, World, make_world


@pytest.fixture(scope="session", params=DEVICES)
def world(request: pytest.FixtureRequest) -> World:
    """A network with its training and test outputs, on every device there is."""
    return make_world(request.param)
