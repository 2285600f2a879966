"""Runtimes report nothing to their makers: the home folder stays empty, and no host is looked up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testing.clips import write_model, write_video

# Every command that loads a runtime, in one process, since loading them takes seconds.
COMMANDS = """
import socket
import sys

from timesformer_cli.cli import main

looked_up = []
socket.getaddrinfo = lambda host, *_, **__: looked_up.append(host) or []

for args in (
    ["export", "model", "--format", "onnx", "--quantize", "int8", "-o", "onnx", "-q"],
    ["predict", "a.mp4", "--model", "onnx", "--offline", "-q"],
    ["export", "model", "--format", "openvino", "--quantize", "int8", "-o", "openvino", "-q"],
    ["predict", "a.mp4", "--model", "openvino", "--offline", "-q"],
):
    try:
        main(args)
    except SystemExit as stop:
        assert stop.code == 0, args
assert "onnxruntime" in sys.modules and "nncf" in sys.modules
assert looked_up == [], looked_up
"""


def test_nothing_is_left_in_the_home_folder(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("nncf")
    write_model(tmp_path / "model")
    write_video(tmp_path / "a.mp4")
    folder = tmp_path / "home"
    folder.mkdir()
    known = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    env = {key: value for key, value in os.environ.items() if key not in known}
    env |= {"HOME": str(folder), "USERPROFILE": str(folder), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    run = subprocess.run([sys.executable, "-c", COMMANDS], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert list(folder.rglob("*")) == []
