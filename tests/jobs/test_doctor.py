"""`timesformer doctor`: each check, in surroundings where something is missing or broken."""

import ctypes.util
import errno
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av.codec
import pytest
import torch

from testing.hub_server import Hub, serve
from testing.surroundings import with_mounts
from timesformer_cli import limits
from timesformer_cli.checkpoints import hub as cache
from timesformer_cli.checkpoints import zoo
from timesformer_cli.errors import SystemLimitError
from timesformer_cli.jobs.doctor import apart, decoders, devices, diagnose, hub, privacy, system, trial, versions, worst
from timesformer_cli.jobs.doctor.devices import Gpu, Setup
from timesformer_cli.jobs.doctor.findings import Check, Finding

TOKEN = "hf_abcdefghijklmnop"


def found(checks: Iterator[Check], name: str) -> Finding:
    """What the check of that name finds in this process, under that name."""
    (check,) = (check for check in checks if check.name == name)
    (finding,) = (finding for finding in check.carry_out() if finding.name == name)
    assert bool(finding.remedy) == (finding.status != "ok")
    return finding


def check_that(find: Callable[[], Any]) -> Check:
    return Check(group="trial", name="mine", find=find, remedy="try mine")


def failing(error: Exception) -> Callable[[], list[Finding]]:
    def find() -> list[Finding]:
        raise error

    return find


@pytest.mark.parametrize(
    ("error", "message", "remedy"),
    [
        (ValueError("one\ntwo"), "ValueError: one", "try mine"),
        (ValueError(""), "ValueError: no message", "try mine"),
        (ImportError("x" * 900), f"ImportError: {'x' * 200}...", "try mine"),
        (SystemLimitError("too few; raise it; or else"), "too few", "raise it; or else"),
        (SystemLimitError("too few"), "too few", "try mine"),
        (PermissionError(errno.EACCES, "not allowed", "/a"), "/a: not allowed", "check the path and its permissions"),
        (RuntimeError("can't start new thread"), "the system starts no more processes", "raise the limit of processes"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk", "free some"),
    ],
)
def test_a_check_that_fails_is_a_problem(error: Exception, message: str, remedy: str) -> None:
    (finding,) = check_that(failing(error)).carry_out()
    assert finding.status == "problem"
    assert finding.message.startswith(message)
    assert finding.remedy.startswith(remedy)
    assert "Traceback" in finding.trace
    assert type(error).__name__ in finding.trace


def test_a_check_apart_gives_its_findings_whatever_it_prints() -> None:
    noisy = check_that(partial(eval, "print('noise') or [1, 2]"))
    assert apart.carry_out(noisy) == [1, 2]
    (python,) = apart.carry_out(next(check for check in versions.checks() if check.name == "python"))
    assert python.message.startswith(sys.version.split()[0])


def test_findings_are_clean_and_from_a_fresh_process_if_they_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = (Finding(group="trial", name=name, message=f"with {TOKEN}") for name in ("here", "there"))
    monkeypatch.setattr(apart, "carry_out", lambda check: [there])
    check = check_that(lambda: [here])
    findings = list(diagnose([check, replace(check, apart=True)]))
    assert [(each.name, each.message) for each in findings] == [("here", "with ***"), ("there", "with ***")]


@pytest.mark.parametrize(
    ("find", "message"),
    [
        (partial(os._exit, 3), "the process of this check died (exit code 3)"),
        (partial(os.kill, 0, signal.SIGTERM), "the process of this check died (SIGTERM)"),
        (partial(exec, "import os, sys; sys.stderr.write('a\\nlast words'); os._exit(1)"), "(exit code 1): last words"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_check_that_kills_its_process_is_a_problem(
    find: Callable[[], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.run
    monkeypatch.setattr(subprocess, "run", partial(start, start_new_session=True))  # a group of its own, to be killed
    (finding,) = apart.carry_out(check_that(find))
    assert (finding.status, finding.remedy) == ("problem", "try mine")
    assert message in finding.message


def test_a_check_that_hangs_is_a_problem() -> None:
    (finding,) = apart.carry_out(check_that(partial(time.sleep, 60)), seconds=0.3)
    assert (finding.status, finding.message) == ("problem", "not done within 0.3 seconds")


def test_a_process_that_cannot_be_started_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failing(OSError(errno.EMFILE, "Too many open files"))())
    (finding,) = apart.carry_out(check_that(time.time))
    assert "open files" in finding.message
    assert "ulimit -n" in finding.remedy


@pytest.mark.skipif(sys.platform == "win32", reason="a current folder cannot be removed")
def test_without_a_current_folder_no_library_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (finding,) = apart.carry_out(check_that(time.time))
    assert (finding.status, finding.remedy) == ("problem", "change to one that exists")


def test_the_worst_counts() -> None:
    ok = Finding(group="limits", name="a", message="")
    warning = Finding(group="limits", name="b", message="", status="warning", remedy="c")
    problem = Finding(group="limits", name="c", message="", status="problem", remedy="c")
    assert [worst(some) for some in ([], [ok], [ok, warning], [warning, problem, ok])] == [
        "ok",
        "ok",
        "warning",
        "problem",
    ]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/home/ada/.cache/hub", "~/.cache/hub"),
        ("/home/ada", "~"),
        ("/home/adam/hub", "/home/adam/hub"),
        ("/scratch/ada/hub", "/scratch/USER/hub"),
        ("/tmp/canada/ada.mp4", "/tmp/canada/ada.mp4"),
        (f"Illegal header value b'Bearer {TOKEN}'", "Illegal header value b'Bearer ***'"),
        ("Bearer abc", "Bearer ***"),
        ("secret-of-old was refused", "*** was refused"),
        (f"a {TOKEN} b", "a *** b"),
        ("https://ada:pass@hub.example/api", "https://hub.example/api"),
        ("ordinary text of ada", "ordinary text of ada"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")
def test_nothing_personal_is_shown(text: str, clean: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setenv("HF_TOKEN", "secret-of-old")
    facts = {"a": [text, 1, None], "b": {"c": text}}
    finding = Finding(group="hub", name="a", message=text, remedy=text, status="warning", facts=facts, trace=text)
    assert privacy.cleaned(finding) == Finding(
        group="hub",
        name="a",
        message=clean,
        remedy=clean,
        status="warning",
        facts={"a": [clean, 1, None], "b": {"c": clean}},
        trace=clean,
    )


def test_a_user_without_a_home_directory_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    finding = Finding(group="hub", name="a", message="~/a and /b")
    assert privacy.cleaned(finding) == finding


def test_optional_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(versions.checks(), "torch").message == torch.__version__
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(__version__="9.9"))  # type: ignore[misc]
    monkeypatch.setattr(versions, "is_installed", lambda name: True)
    assert found(versions.checks(), "pyarrow").message == "9.9"
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    broken = found(versions.checks(), "pyarrow")
    assert (broken.status, broken.facts) == ("problem", {})
    monkeypatch.setattr(versions, "is_installed", lambda name: False)
    absent = found(versions.checks(), "pyarrow")
    assert (absent.status, absent.facts) == ("ok", {"version": None})
    assert "timesformer-cli[parquet]" in absent.message


@pytest.mark.parametrize(
    ("setup", "status", "message", "remedy"),
    [
        (Setup(build=None), "ok", "built for CPUs only", ""),
        (Setup(build=None, kernel=True), "warning", "an NVIDIA GPU is here", "pytorch.org"),
        (Setup(build=None, driver="12.4"), "warning", "an NVIDIA GPU is here", "pytorch.org"),
        (Setup(build="CUDA 13.0", driver="13.1", count=2), "ok", "2 usable", ""),
        (Setup(build="ROCm 6.4", count=1), "ok", "1 usable", ""),
        (Setup(build="ROCm 6.4"), "warning", "no GPU of AMD", "rocminfo"),
        (Setup(build="CUDA 13.0"), "warning", "there is no NVIDIA driver", "install its driver"),
        (Setup(build="CUDA 13.0", driver="13.0", hidden=True), "warning", "CUDA_VISIBLE_DEVICES", "unset it"),
        (Setup(build="CUDA 13.0", kernel=True), "problem", "libcuda", "Container Toolkit"),
        (Setup(build="CUDA 13.0", driver="12.4"), "problem", "too old: it is for CUDA 12.4", "update the driver"),
        (Setup(build="CUDA 13.0", driver="13.0", complaint="Error 802"), "problem", "(Error 802)", "nvidia-smi"),
    ],
)
def test_gpus_that_cannot_be_used(setup: Setup, status: str, message: str, remedy: str) -> None:
    finding = devices.judge(setup)
    assert (finding.status, bool(finding.remedy)) == (status, bool(remedy))
    assert message in finding.message
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("free", "complaint", "status", "remedy"),
    [
        (70e9, "", "ok", ""),
        (1e9, "", "warning", "end other programs"),
        (0, "CUDA error: out of memory", "problem", "end other programs"),
        (0, "CUDA error: no kernel image is available for execution", "problem", "built for sm_120"),
        (0, "CUDA error: unspecified launch failure", "problem", "nvidia-smi"),
    ],
)
def test_a_gpu_without_memory_or_that_fails(free: float, complaint: str, status: str, remedy: str) -> None:
    finding = devices.judge_gpu(
        Gpu(number=3, name="Big One", architecture="sm_120", free=int(free), total=int(80e9), complaint=complaint)
    )
    assert (finding.name, finding.status, bool(finding.remedy)) == ("cuda:3", status, bool(remedy))
    assert remedy in finding.remedy
    assert complaint in finding.message


def test_what_pytorch_says_of_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch claims a GPU that it does not have; so the calculation there fails."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "Big One")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (9, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: failing(RuntimeError("CUDA error: gone"))())
    findings = {finding.name: finding for finding in devices.find()}
    assert [findings[name].status for name in ("cpu", "cuda", "cuda:0")] == ["ok", "ok", "problem"]
    assert findings["cuda:0"].message == "Big One (sm_90) cannot calculate: CUDA error: gone"


def test_what_pytorch_warns_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_available() -> bool:
        import warnings

        warnings.warn("CUDA initialization: too old\nmore", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    setup = devices.ask_torch()
    assert (setup.complaint, setup.hidden, setup.count) == ("CUDA initialization: too old", True, 0)


def test_pyav_reads_and_names_codecs_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(decoders.checks(), "pyav").facts["codecs_missing"] == []
    monkeypatch.setattr(av.codec, "codecs_available", av.codec.codecs_available - {"libdav1d", "libaom-av1", "hevc"})
    finding = found(decoders.checks(), "pyav")
    assert (finding.status, finding.facts["codecs_missing"]) == ("warning", ["hevc", "av1"])


@pytest.mark.skipif(not versions.is_installed("decord"), reason="no decord")
def test_decord_says_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found(decoders.checks(), "decord")
    assert finding.status == "ok"
    assert "several video streams" in finding.facts["refuses"]
    assert "av1" not in finding.facts["codecs"]
    monkeypatch.setitem(sys.modules, "timesformer_cli.video.decoders.decord", None)
    broken = found(decoders.checks(), "decord")
    assert broken.status == "problem"
    assert "does not work" in broken.message
    assert "`decoder=pyav`" in broken.remedy


def test_a_decoder_that_is_not_installed_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "is_installed", lambda name: False)
    assert {found(decoders.checks(), name).status for name in versions.DECODERS} == {"ok"}


@pytest.mark.skipif(not versions.is_installed("torchcodec"), reason="no torchcodec")
@pytest.mark.parametrize(
    ("library", "status", "here"), [(None, "problem", None), ("libavcodec.so.57", "problem", 3), ("a.so.61", "ok", 7)]
)
def test_torchcodec_without_an_ffmpeg_that_it_wants(
    library: str | None, status: str, here: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timesformer_cli.video.decoders.torchcodec", None)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: library)
    (check,) = (check for check in decoders.checks() if check.name == "torchcodec")
    decoder, ffmpeg = check.carry_out()
    assert (decoder.status, ffmpeg.status, ffmpeg.facts["found"]) == ("problem", status, here)
    assert 7 in ffmpeg.facts["wanted"]
    assert ("apt-get install ffmpeg" in ffmpeg.remedy) == (status == "problem")


@pytest.fixture
def a_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve() as server:
        server.connect(monkeypatch, tmp_path / "cache")
        yield server


def test_a_hub_that_answers(a_hub: Hub) -> None:
    repo = zoo.ZOO["base-k400"].repo
    assert repo is not None
    a_hub.add_repo(repo, {"config.json": b"{}"})
    finding = found(hub.checks(offline=False), "connection")
    assert (finding.status, finding.facts["asked"]) == ("ok", True)
    assert finding.message.startswith(f"{a_hub.url} answers")
    assert a_hub.files() == []


def test_a_hub_that_does_not_answer(a_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    a_hub.add_fault("models", status=503)
    finding = found(hub.checks(offline=False), "connection")
    assert finding.status == "problem"
    assert "503" in finding.message
    assert finding.remedy.startswith("try again in a few minutes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        finding = found(hub.checks(offline=False), "connection")
    assert "Connection refused" in finding.message or "the connection failed" in finding.message
    assert "HF_ENDPOINT" in finding.remedy


def test_a_hub_that_hangs_is_waited_for_so_long(a_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.2)
    a_hub.add_fault("models", hang=True)
    assert "no answer within 0.2 s" in found(hub.checks(offline=False), "connection").message


@pytest.mark.parametrize("by", ["option", "variable"])
def test_offline_the_hub_is_not_asked(a_hub: Hub, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", by == "variable")
    finding = found(hub.checks(offline=by == "option"), "connection")
    assert (finding.status, finding.facts["asked"], a_hub.log) == ("ok", False, [])


def test_the_cache(a_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = found(hub.checks(offline=False), "cache")
    assert (finding.status, finding.facts["path"]) == ("ok", str(cache.cache_folder()))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8, total=10**9))
    assert found(hub.checks(offline=False), "cache").status == "warning"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    finding = found(hub.checks(offline=False), "cache")
    assert finding.status == "problem"
    assert "cannot be written" in finding.message
    monkeypatch.setattr(cache, "cache_folder", lambda: None)
    for offline, status in ((False, "problem"), (True, "warning")):
        finding = found(hub.checks(offline=offline), "cache")
        assert finding.status == status
        assert "no home directory" in finding.message
        assert "HF_HOME" in finding.remedy


def test_the_default_model_is_wanted_in_the_cache_only_offline(
    a_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(hub.checks(offline=False), "models").status == "ok"
    assert "`timesformer models download base-k400`" in found(hub.checks(offline=True), "models").remedy
    monkeypatch.setattr(cache, "find_cached", lambda repo, revision: object())
    finding = found(hub.checks(offline=True), "models")
    assert finding.status == "ok"
    assert "base-k400" in finding.facts["cached"]


def test_where_the_token_is_but_not_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "token"
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(path))
    assert found(hub.checks(offline=False), "token").facts == {"exists": False, "source": None}
    path.write_text(TOKEN)
    finding = found(hub.checks(offline=False), "token")
    assert finding.facts == {"exists": True, "source": str(path)}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    variable = found(hub.checks(offline=False), "token")
    assert variable.facts == {"exists": True, "source": "HF_TOKEN"}
    assert TOKEN.encode() not in pickle.dumps([finding, variable])
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert found(hub.checks(offline=False), "token").status == "warning"


@pytest.mark.parametrize(
    ("limit", "status"), [(None, "ok"), (100_000, "ok"), (64, "warning"), (20, "warning"), (16, "problem")]
)
def test_open_files(limit: int | None, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "resource_limit", lambda name: limit)
    finding = found(system.checks(()), "open_files")
    assert (finding.status, finding.facts) == (status, {"limit": limit})


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
@pytest.mark.parametrize(
    ("user", "container", "status"),
    [(None, None, "ok"), (9000, 9000, "ok"), (9000, 8, "warning"), (8, None, "warning")],
)
def test_processes(user: int | None, container: int | None, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "resource_limit", lambda name: user)
    monkeypatch.setattr(limits, "process_limit", lambda: container)
    assert found(system.checks(()), "processes").status == status


@pytest.mark.parametrize(("container", "status"), [(None, "ok"), (8 * 2**30, "ok"), (2**30, "warning")])
def test_memory(container: int | None, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 2**20, raising=False)
    monkeypatch.setattr(limits, "resource_limit", lambda name: None)
    monkeypatch.setattr(limits, "memory_limit", lambda: container)
    finding = found(system.checks(()), "memory")
    assert (finding.status, finding.facts["container"]) == (status, container)


def test_cores_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "cpu_quota", lambda: 1.5)
    assert "the container grants the time of 1.5" in found(system.checks(()), "cores").message


# The script of a process that has mounts of its own: it prints status and message of each of these checks.
SCRIPT = """
from timesformer_cli.jobs.doctor import system
for check in system.checks(()):
    if check.name in ("shared_memory", "temporary_folder"):
        for finding in check.carry_out():
            print(finding.status, finding.message)
"""


@pytest.mark.parametrize(
    ("mounts", "shared", "temporary"),
    [
        (
            ("-t tmpfs -o ro none /dev/shm", "-t tmpfs -o size=64k none /tmp"),
            "warning /dev/shm cannot be written",
            "problem /tmp, 64 KiB free: too little",
        ),
        (
            ("-t tmpfs -o size=64m none /dev/shm", "-t tmpfs -o ro none /tmp"),
            "warning 64.0 MiB of 64.0 MiB free",
            "warning /var/tmp",
        ),
    ],
)
def test_small_mounts_of_containers(mounts: tuple[str, ...], shared: str, temporary: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("TMPDIR", "TEMP", "TMP")}
    command = [*with_mounts(*mounts), sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd="/")
    first, second = done.stdout.splitlines()
    assert first.startswith(shared)
    assert second.startswith(temporary)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm")
def test_no_shared_memory_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_SHARED_FOLDER", tmp_path / "none")
    monkeypatch.setattr("timesformer_cli.pipeline.shared_arrays.leave", lambda name, array: False)
    finding = found(system.checks(()), "shared_memory")
    assert (finding.status, finding.facts) == ("warning", {"usable": False, "bytes": None, "bytes_free": None})
    assert "there is no" in finding.message


def test_no_temporary_folder_or_a_long_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timesformer_cli.pipeline.processes.has_place_for_socket", lambda: False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    finding = found(system.checks(()), "temporary_folder")
    assert (finding.status, finding.facts["takes_socket"]) == ("warning", False)
    assert "too long for a socket" in finding.message
    monkeypatch.setattr(tempfile, "gettempdir", lambda: failing(FileNotFoundError(errno.ENOENT, "none"))())
    finding = found(system.checks(()), "temporary_folder")
    assert (finding.status, finding.facts) == ("problem", {"path": None})
    assert "TMPDIR" in finding.remedy


def test_the_current_folder_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(system.checks(()), "current_folder").status == "ok"
    monkeypatch.setattr(os, "getcwd", lambda: failing(FileNotFoundError(errno.ENOENT, "gone"))())
    assert found(system.checks(()), "current_folder").status == "problem"


def test_closed_streams() -> None:
    finding = found(system.checks(["standard error"]), "standard_streams")
    assert (finding.status, finding.facts) == ("warning", {"closed": ["standard error"]})
    assert found(system.checks(()), "standard_streams").status == "ok"


def full(path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_trial_labels_a_clip_that_is_made() -> None:
    finding = found(trial.checks(), "label_a_clip")
    assert (finding.status, finding.facts["label"]) == ("ok", "pan right")
    assert finding.facts["score"] > 0.9


def test_the_trial_takes_the_bundled_clip_if_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "write_clip", full)
    finding = found(trial.checks(), "label_a_clip")
    assert (finding.status, finding.facts["label"]) == ("ok", "tilt up")


def test_the_trial_of_a_device_that_calculates_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_MADE", "static")
    finding = found(trial.checks(), "label_a_clip")
    assert finding.status == "problem"
    assert "labelled 'pan right' on" in finding.message
    assert "`device=cpu`" in finding.remedy


def test_the_trial_of_a_clip_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "write_clip", lambda path: path.write_bytes(b"no video"))
    finding = found(trial.checks(), "label_a_clip")
    assert finding.status == "problem"
    assert finding.message.startswith("the clip cannot be read: ")
