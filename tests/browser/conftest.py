"""Fixtures of the browser tests. Playwright keeps an event loop in its thread, so no fixture outlives its module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import running_chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    with running_chromium() as browser:
        yield browser
