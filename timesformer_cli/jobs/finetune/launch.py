"""Whether a run has several processes, and which of them this one is, as torchrun or SLURM says. Needs no torch."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from timesformer_cli.errors import UsageError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

# Ports that a job may get if MASTER_PORT is not set: below those that systems give to connections.
_FIRST_PORT, _PORTS = 12_000, 20_000

# Far more processes than any run has.
_MANY = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The place of this process among `size`, counted from 0: `rank` among all, `local_rank` on its machine.

    They meet at `host` and `port`, where rank 0 listens, or the launcher itself if it is `hosted`. `attempt` counts
    restarts by the launcher. `alone_on_gpu`: the launcher may show each process only its own GPU.
    """

    rank: int
    size: int
    local_rank: int
    host: str
    port: int
    hosted: bool = False
    attempt: int = 0
    alone_on_gpu: bool = False


def launch_of_this_process() -> Launch | None:
    """The launch that this process is of, None if it is the only one. Call it before torch is imported.

    Raises:
        UsageError: as `launched`.
    """
    found = launched(os.environ)
    if found is not None:
        # With several processes, torch's native code writes pages about each connection that another one ended.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    return found


def launched(environ: Mapping[str, str]) -> Launch | None:
    """The launch that the variables `environ` tell of; None for a process that is the only one.

    torchrun comes first: it may itself be started by SLURM, once on each machine. SLURM counts only in a process that
    `srun` started: the shell of an allocation has most of its variables too, but not those of a step.

    Raises:
        UsageError: variables are missing, or contradict each other.
    """
    if "RANK" in environ or "WORLD_SIZE" in environ:
        launch = _by_torchrun(environ)
    elif "SLURM_PROCID" in environ and "SLURM_STEP_ID" in environ:
        launch = _by_slurm(environ)
    else:
        return None
    return launch if launch.size > 1 else None


def _by_torchrun(environ: Mapping[str, str]) -> Launch:
    missing = [name for name in _TORCHRUN if not environ.get(name)]
    if missing:
        there = "RANK" if "RANK" in environ else "WORLD_SIZE"
        raise UsageError(
            f"the variable {there} is set, but not {', '.join(missing)}; start several processes with torchrun or "
            f"srun, or unset {there} for only one"
        )
    size, rank, local_rank = _place(environ, "WORLD_SIZE", "RANK", "LOCAL_RANK")
    return Launch(
        rank=rank,
        size=size,
        local_rank=local_rank,
        host=environ["MASTER_ADDR"],
        port=_number(environ, "MASTER_PORT", 1, 2**16),
        hosted=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=_number(environ, "TORCHELASTIC_RESTART_COUNT", 0, _MANY, default=0),
    )


def _by_slurm(environ: Mapping[str, str]) -> Launch:
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    size, rank, local_rank = _place(environ, tasks, "SLURM_PROCID", "SLURM_LOCALID")
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST") or ""
    host = environ.get("MASTER_ADDR") or first_host(nodes)
    if not host and size > 1:
        raise UsageError("SLURM does not say on which machines it runs; set MASTER_ADDR to the machine of rank 0")
    job, step = (_number(environ, name, 0, 2**64, default=0) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return Launch(
        rank=rank,
        size=size,
        local_rank=local_rank,
        host=host,
        port=_number(environ, "MASTER_PORT", 1, 2**16, default=_FIRST_PORT + (16 * job + step) % _PORTS),
        alone_on_gpu=True,
    )


def _place(environ: Mapping[str, str], all_: str, rank: str, local: str) -> tuple[int, int, int]:
    """How many processes there are, and which one this is among all and on its machine. Raises UsageError."""
    size = _number(environ, all_, 1, _MANY)
    found = _number(environ, rank, 0, _MANY)
    if found >= size:
        raise UsageError(f"the variables {rank}={found} and {all_}={size} contradict each other; ranks count from 0")
    own = _number(environ, local, 0, _MANY)
    if own > found:
        raise UsageError(f"the variables {rank}={found} and {local}={own} contradict each other")
    return size, found, own


def _number(environ: Mapping[str, str], name: str, least: int, end: int, default: int | None = None) -> int:
    """Raises UsageError for what is no whole number from `least` to below `end`."""
    text = environ.get(name, "")
    if not text and default is not None:
        return default
    if not re.fullmatch(r"[0-9]{1,20}", text) or not least <= int(text) < end:
        raise UsageError(f"the variable {name}={text!r} is not a whole number from {least} to {end - 1}")
    return int(text)


def first_host(nodes: str) -> str:
    """The first machine of a list as SLURM writes it: `gpu[003-005,9],login` is gpu003; "" for an empty list."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0]) if first else ""
