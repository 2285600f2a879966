"""Devices that run the network, and what is broken about them."""

import ctypes
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from timesformer_cli.jobs.doctor.findings import Check, Finding, Status, first_line

# Free memory of a GPU, in bytes, below which larger models and batches do not fit.
_LITTLE = 2 * 2**30

_GB = 1e9
_CHOOSE = "https://pytorch.org/get-started/locally/"


def checks() -> Iterator[Check]:
    remedy = "install PyTorch again; the section CUDA of docs/troubleshooting.md says which"
    yield Check(group="devices", name="cpu", find=find, remedy=remedy, apart=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What PyTorch and the system say about GPUs of NVIDIA, or of AMD with ROCm.

    `build` is what PyTorch was built for, such as "CUDA 13.0", None if for CPUs only; `driver` the newest CUDA that the
    driver has, such as "12.4", None without its library; `kernel`: whether the system's kernel has the driver.
    `hidden`: CUDA_VISIBLE_DEVICES hides all. `complaint` is PyTorch's, if it made one. `count` devices can be used.
    """

    build: str | None
    driver: str | None = None
    kernel: bool = False
    hidden: bool = False
    complaint: str = ""
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One of the devices: `free` and `total` memory in bytes; `complaint` if a small calculation failed there."""

    number: int
    name: str
    architecture: str
    free: int = 0
    total: int = 0
    complaint: str = ""


def find() -> list[Finding]:
    """All of this machine; imports torch."""
    import torch

    found = [_cpu()]
    setup = ask_torch()
    found.append(judge(setup))
    found += [judge_gpu(ask_gpu(number)) for number in range(setup.count)]
    if sys.platform == "darwin":
        usable = torch.backends.mps.is_available()
        message = "usable" if usable else "none that PyTorch can use (it needs Apple silicon and macOS 14)"
        found.append(Finding(group="devices", name="mps", message=message, facts={"usable": usable}))
    return found


def _cpu() -> Finding:
    import torch

    facts = {
        "architecture": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    message = f"{facts['architecture']}, {facts['instructions']}, {facts['threads']} threads of PyTorch by default"
    return Finding(group="devices", name="cpu", message=message, facts=facts)


def ask_torch() -> Setup:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else None
    if torch.version.hip:
        build = f"ROCm {torch.version.hip}"
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Setup(
        build=build,
        driver=_driver(),
        kernel=Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists(),
        hidden=visible is not None and visible.strip() in ("", "-1"),
        complaint=" ".join(first_line(each.message) for each in complaints if isinstance(each.message, Warning)),
        count=count,
    )


def _driver() -> str | None:
    """The newest version of CUDA that NVIDIA's driver supports."""
    version = ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if driver.cuDriverGetVersion(ctypes.byref(version)):
            return None
    except (OSError, AttributeError):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def judge(setup: Setup) -> Finding:
    """What works of it, and what to do."""
    status, message, remedy = _judge(setup)
    facts = {"build": setup.build, "driver": setup.driver, "devices": setup.count}
    return Finding(group="devices", name="cuda", status=status, message=message, remedy=remedy, facts=facts)


def _judge(setup: Setup) -> tuple[Status, str, str]:
    here = setup.kernel or setup.driver is not None
    if setup.build is None:
        if not here:
            return "ok", "none: this PyTorch is built for CPUs only", ""
        return "warning", "an NVIDIA GPU is here, but this PyTorch is built for CPUs only", f"to use it, see {_CHOOSE}"
    built = f"this PyTorch is built for {setup.build}"
    if setup.count:
        driver = f", the driver for CUDA {setup.driver} or older" if setup.driver else ""
        return "ok", f"{setup.count} usable; {built}{driver}", ""
    if setup.hidden:
        return "warning", f"{built}, but CUDA_VISIBLE_DEVICES hides all GPUs", "unset it to use them"
    if setup.build.startswith("ROCm"):
        return (
            "warning",
            f"{built}, and finds no GPU of AMD; the CPU is used",
            "run rocminfo; in a container, pass the GPU",
        )
    if not here:
        remedy = f"with an NVIDIA GPU, install its driver; without one, a PyTorch for CPUs is smaller: {_CHOOSE}"
        return "warning", f"{built}, but there is no NVIDIA driver; the CPU is used", remedy
    if setup.driver is None:
        remedy = "in a container, pass the GPUs with the NVIDIA Container Toolkit; elsewhere, install the driver again"
        return "problem", "the NVIDIA driver is loaded, but its library (libcuda) is missing; the CPU is used", remedy
    if _major(setup.driver) < _major(setup.build.removeprefix("CUDA ")):
        remedy = f"update the driver, or install a PyTorch for CUDA {setup.driver} or older: {_CHOOSE}"
        return "problem", f"{built}, but the driver is too old: it is for CUDA {setup.driver}; the CPU is used", remedy
    reason = f" ({setup.complaint})" if setup.complaint else ""
    remedy = "run nvidia-smi: if it fails too, restart the machine or install the driver again"
    return "problem", f"PyTorch cannot use the GPU{reason}; the CPU is used", remedy


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def ask_gpu(number: int) -> Gpu:
    import torch

    major, minor = torch.cuda.get_device_capability(number)
    name, architecture = torch.cuda.get_device_name(number), f"sm_{major}{minor}"
    try:
        free, total = torch.cuda.mem_get_info(number)
        (torch.ones(2, device=f"cuda:{number}") + 1).sum().item()
    except (RuntimeError, AssertionError) as error:
        return Gpu(number=number, name=name, architecture=architecture, complaint=first_line(error))
    return Gpu(number=number, name=name, architecture=architecture, free=free, total=total)


def judge_gpu(gpu: Gpu) -> Finding:
    status: Status = "ok"
    remedy = ""
    message = f"{gpu.name} ({gpu.architecture}), {gpu.free / _GB:.1f} of {gpu.total / _GB:.1f} GB free"
    if gpu.complaint:
        status, message = "problem", f"{gpu.name} ({gpu.architecture}) cannot calculate: {gpu.complaint}"
        remedy = "run nvidia-smi: if it fails too, restart the machine; meanwhile use `device=cpu`"
        if "no kernel image" in gpu.complaint:
            remedy = f"install a PyTorch that is built for {gpu.architecture}: {_CHOOSE}"
        elif "out of memory" in gpu.complaint:
            remedy = "end other programs that use the GPU (nvidia-smi lists them), or use `device=cpu`"
    elif gpu.free < _LITTLE:
        status = "warning"
        remedy = "end other programs that use the GPU (nvidia-smi lists them)"
    facts = {"name": gpu.name, "architecture": gpu.architecture, "bytes_free": gpu.free, "bytes": gpu.total}
    name = f"cuda:{gpu.number}"
    return Finding(group="devices", name=name, status=status, message=message, remedy=remedy, facts=facts)
