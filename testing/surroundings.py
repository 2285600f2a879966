"""Surroundings like those of containers: mounts of one's own. Tests skip if the system forbids it."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_APART = ["unshare", "--user", "--map-root-user", "--mount"]


@functools.cache
def _allowed() -> bool:
    return (
        sys.platform == "linux"
        and shutil.which("unshare") is not None
        and subprocess.run([*_APART, "mount", "-t", "tmpfs", "none", "/dev/shm"], capture_output=True).returncode == 0
    )


def with_mounts(*mounts: str) -> list[str]:
    """The start of a command for which these hold: arguments of `mount`, such as `-t tmpfs -o ro none /dev/shm`."""
    if not _allowed():
        pytest.skip("mounts of one's own are not allowed here")
    for folder in {mount.split()[-1] for mount in mounts}:
        if any(Path(needed).is_relative_to(folder) for needed in (__file__, sys.prefix, sys.base_prefix)):
            pytest.skip(f"this checkout, or its Python, lies in {folder}, which the test hides")
    script = " && ".join([*(f"mount {mount}" for mount in mounts), 'exec "$@"'])
    return [*_APART, "sh", "-c", script, "sh"]
