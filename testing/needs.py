"""Tools that not every machine has: a browser, Ray, torchcodec.

Tests skip without them, and pytest says so. If TIMESFORMER_TEST_ALL is set, as CI sets it, they fail instead: tests
that are always skipped are soon forgotten.
"""

import os
from typing import NoReturn

import pytest

ALL = bool(os.environ.get("TIMESFORMER_TEST_ALL"))


def lack(tool: str) -> NoReturn:
    """Skip the running test, or fail it, for lack of the tool."""
    if ALL:
        pytest.fail(f"no {tool}, which TIMESFORMER_TEST_ALL asks for", pytrace=False)
    pytest.skip(f"no {tool}")
