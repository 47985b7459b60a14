"""Fixtures of the tests of reports."""

import pytest
from chromium import Browser, program, shown


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """Opens a file; skipped, with the reason, where there is no browser."""
    found = program()
    if found is None:
        pytest.skip("no Chromium here: make browser")
    return lambda file: shown(found, tmp_path_factory.mktemp("profile"), file)
