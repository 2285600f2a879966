"""What the system grants: processor time of control groups, and one line for what it refuses."""

import errno
import os
import sys
from pathlib import Path

import pytest

from timesformer_cli.errors import SystemLimitError
from timesformer_cli.limits import (
    check_current_folder,
    cpu_quota,
    memory_limit,
    process_limit,
    resource_limit,
    shortage,
    starting,
)
from timesformer_cli.runtimes import devices

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw"
V1 = "32 31 0:29 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
V1_OF = "33 31 0:30 / /sys/fs/cgroup/{0} rw - cgroup cgroup rw,{0}"
# With a group of version 2 beside it, which has no controllers: systemd's hybrid layout.
HYBRID = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"


def machine(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    (root / "proc/self/mountinfo").write_text(mounts)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "quota"),
    [
        pytest.param("0::/\n", V2, {"cpu.max": "150000 100000\n"}, 1.5, id="version 2, in a container"),
        pytest.param("0::/\n", V2, {"cpu.max": "max 100000\n"}, None, id="version 2, no limit"),
        pytest.param("0::/\n", V2, {}, None, id="version 2, the root of the machine"),
        pytest.param(
            "0::/jobs/step_0\n",
            V2,
            {"jobs/cpu.max": "300000 100000\n", "jobs/step_0/cpu.max": "max 100000\n"},
            3.0,
            id="version 2, the group above limits",
        ),
        pytest.param(
            "0::/jobs/step_0\n",
            V2,
            {"jobs/cpu.max": "300000 100000\n", "jobs/step_0/cpu.max": "200000 50000\n"},
            3.0,
            id="version 2, the least counts",
        ),
        pytest.param(
            "5:memory:/docker/1a2b\n4:cpu,cpuacct:/docker/1a2b\n0::/docker/1a2b\n",
            f"{V1.format(mounted='/docker/1a2b')}\n{HYBRID}\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            0.5,
            id="version 1, in a container that sees its own group only",
        ),
        pytest.param(
            "4:cpu,cpuacct:/jobs\n1:name=systemd:/a:b\n",
            V1.format(mounted="/"),
            {"cpu,cpuacct/jobs/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/jobs/cpu.cfs_period_us": "100000\n"},
            4.0,
            id="version 1",
        ),
        pytest.param(
            "4:cpu,cpuacct:/\n",
            V1.format(mounted="/"),
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            None,
            id="version 1, no limit",
        ),
        pytest.param("odd\n", "odd\n", {}, None, id="nothing that is understood"),
    ],
)
def test_quotas(tmp_path: Path, groups: str, mounts: str, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(machine(tmp_path, groups, mounts, files)) == quota


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "memory", "processes"),
    [
        pytest.param("0::/\n", V2, {"memory.max": "1000\n", "pids.max": "max\n"}, 1000, None, id="version 2"),
        pytest.param(
            "0::/a\n",
            V2,
            {"memory.max": "900\n", "a/memory.max": "1000\n", "pids.max": "20\n", "a/pids.max": "30\n"},
            900,
            20,
            id="version 2, the least counts",
        ),
        pytest.param(
            "5:memory:/a\n4:pids:/a\n",
            f"{V1_OF.format('memory')}\n{V1_OF.format('pids')}\n",
            {"memory/a/memory.limit_in_bytes": "9223372036854771712\n", "pids/a/pids.max": "7\n"},
            None,
            7,
            id="version 1, no limit of memory",
        ),
        pytest.param(
            "5:memory:/a\n",
            V1_OF.format("memory"),
            {"memory/a/memory.limit_in_bytes": "1073741824\n"},
            2**30,
            None,
            id="version 1",
        ),
    ],
)
def test_limits_of_memory_and_processes(
    tmp_path: Path, groups: str, mounts: str, files: dict[str, str], memory: int | None, processes: int | None
) -> None:
    root = machine(tmp_path, groups, mounts, files)
    assert (memory_limit(root), process_limit(root)) == (memory, processes)


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert (cpu_quota(tmp_path), memory_limit(tmp_path), process_limit(tmp_path)) == (None, None, None)


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
@pytest.mark.parametrize(("soft", "limit"), [(64, 64), (-1, None)])
def test_limits_of_a_process(soft: int, limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (soft, -1))
    monkeypatch.setattr("resource.RLIM_INFINITY", -1)
    assert resource_limit("RLIMIT_NOFILE") == limit


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (2.0, 2), (1.5, 2), (0.25, 1), (64.0, 8)])
def test_a_quota_counts_as_affinity_does(monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(devices, "cpu_quota", lambda: quota)
    assert devices.available_cores() == cores


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), "fs.file-max"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("Could not determine home directory."), "set HOME"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk; free some"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: no space left on the disk; free some"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "set TMPDIR"),
    ],
)
def test_what_is_short_is_told_with_a_remedy(error: Exception, part: str) -> None:
    assert part in str(shortage(error))


@pytest.mark.skipif(sys.platform == "win32", reason="a current folder cannot be removed")
def test_the_current_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_current_folder()
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemLimitError, match="change to one that exists"):
        check_current_folder()
    with pytest.raises(FileNotFoundError) as error:
        os.getcwd()
    assert "change to one that exists" in str(shortage(error.value))
    assert shortage(FileNotFoundError(errno.ENOENT, "gone", "/a")) is None


def test_other_errors_are_none_of_the_systems_limits() -> None:
    assert [shortage(error) for error in (OSError(errno.ENOENT, "gone"), RuntimeError("mistake"), EOFError())] == [
        None
    ] * 3


@pytest.mark.parametrize(
    "error", [EOFError(), ConnectionRefusedError(), BlockingIOError(errno.EAGAIN, "no"), OSError(errno.ENOMEM, "none")]
)
def test_processes_that_cannot_be_started(error: Exception) -> None:
    with pytest.raises(SystemLimitError, match="`workers=0`"), starting():
        raise error


def test_a_server_without_open_files_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timesformer_cli.limits.resource_limit", lambda _: 16)
    with pytest.raises(SystemLimitError, match=r"open files is too low \(16\); raise it"), starting():
        raise EOFError
