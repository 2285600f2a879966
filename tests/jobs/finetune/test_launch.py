"""Which process of how many this one is, by the variables of torchrun and SLURM."""

import os
from typing import Any

import pytest

from timesformer_cli.errors import UsageError
from timesformer_cli.jobs.finetune.launch import Launch, first_host, launch_of_this_process, launched

TORCHRUN = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_JOB_NODELIST": "gpu[011-012,20]",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
}
STEP = {"SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_NODELIST": "gpu[012,20]"}


def test_torchrun() -> None:
    expected: dict[str, Any] = {"rank": 9, "size": 16, "local_rank": 1, "host": "gpu1", "port": 29500}
    assert launched(TORCHRUN) == Launch(**expected)
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert launched(TORCHRUN | agent) == Launch(**expected, hosted=True, attempt=2)
    # Within a step of SLURM that starts torchrun once on each machine.
    assert launched(TORCHRUN | SLURM | STEP | {"SLURM_STEP_NUM_TASKS": "2"}) == Launch(**expected)


def test_torch_is_quiet_in_one_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert launch_of_this_process() is None
    assert "TORCH_CPP_LOG_LEVEL" not in os.environ
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert launch_of_this_process() == launched(TORCHRUN)
    assert os.environ["TORCH_CPP_LOG_LEVEL"] == "ERROR"


def test_slurm() -> None:
    found = launched(SLURM | STEP)
    assert found == Launch(rank=9, size=16, local_rank=1, host="gpu012", port=25075, alone_on_gpu=True)
    given = launched(SLURM | STEP | {"MASTER_ADDR": "here", "MASTER_PORT": "1111"})
    assert given == Launch(rank=9, size=16, local_rank=1, host="here", port=1111, alone_on_gpu=True)
    # A step may be a part of its job.
    part = launched(SLURM | STEP | {"SLURM_STEP_NUM_TASKS": "10"})
    assert part is not None
    assert part.size == 10


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"MASTER_ADDR": "gpu1", "LOCAL_RANK": "0"},  # some shells export them for good
        TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"},
        SLURM | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # the script of an allocation, without srun
        SLURM | STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
    ],
)
def test_the_only_process(environ: dict[str, str]) -> None:
    assert launched(environ) is None


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"RANK": "0"}, r"RANK is set, but not WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT; start"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "here"}, r"WORLD_SIZE is set, but not RANK, LOCAL_RANK, MASTER_PORT;"),
        (TORCHRUN | {"RANK": "16"}, r"RANK=16 and WORLD_SIZE=16 contradict each other"),
        (TORCHRUN | {"LOCAL_RANK": "10"}, r"RANK=9 and LOCAL_RANK=10 contradict each other"),
        (TORCHRUN | {"RANK": "-1"}, r"RANK='-1' is not a whole number from 0"),
        (TORCHRUN | {"WORLD_SIZE": "two"}, r"WORLD_SIZE='two' is not a whole number from 1"),
        (TORCHRUN | {"MASTER_PORT": "70000"}, r"MASTER_PORT='70000' is not a whole number from 1 to 65535"),
        (SLURM | STEP | {"SLURM_PROCID": "16"}, r"SLURM_PROCID=16 and SLURM_STEP_NUM_TASKS=16 contradict"),
        (SLURM | STEP | {"SLURM_LOCALID": ""}, r"SLURM_LOCALID='' is not a whole number from 0"),
        (SLURM | STEP | {"SLURM_STEP_NODELIST": "", "SLURM_JOB_NODELIST": ""}, r"set MASTER_ADDR"),
    ],
)
def test_contradictions(environ: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        launched(environ)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("", ""),
        ("login", "login"),
        ("a,b", "a"),
        ("gpu[003-005,9],login", "gpu003"),
        ("gpu[7]", "gpu7"),
        ("rack[1-2]-node[03,5].cluster,other", "rack1-node03.cluster"),
    ],
)
def test_first_host(nodes: str, host: str) -> None:
    assert first_host(nodes) == host
