"""Tools that not every machine has: a browser, Ray, torchcodec.

Tests skip without them, and pytest says so. Where TIMESFORMER_TEST_ALL is set, as CI sets it, they fail instead: what
is skipped day by day is soon forgotten.
"""

import os
from typing import NoReturn

import pytest

ALL = bool(os.environ.get("TIMESFORMER_TEST_ALL"))


def lack(tool: str) -> NoReturn:
    """Skip the test that runs, or fail it, for want of the tool."""
    if ALL:
        pytest.fail(f"no {tool}, which TIMESFORMER_TEST_ALL asks for", pytrace=False)
    pytest.skip(f"no {tool}")
