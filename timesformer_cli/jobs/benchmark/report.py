"""The report of a run: its measurements, what they apply to, and how they compare with an earlier report."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from timesformer_cli.bundled import CLIP
from timesformer_cli.flow import Item
from timesformer_cli.jobs.benchmark.figures import Duel, Measurement
from timesformer_cli.jobs.benchmark.settings import Settings
from timesformer_cli.network.cost import Cost
from timesformer_cli.results.settings import differences
from timesformer_cli.runtimes import runtime_of
from timesformer_cli.runtimes.devices import available_cores
from timesformer_cli.specs import Checkpoint


@dataclass(frozen=True, slots=True)
class Report:
    """All results of a run; `about` is what `describe` gives."""

    about: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    duels: tuple[Duel, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.about,
            "measurements": [measurement.to_dict() for measurement in self.measurements],
            "against": [duel.to_dict() for duel in self.duels],
        }


def describe(checkpoint: Checkpoint, items: Sequence[Item], settings: Settings, cost: Cost) -> dict[str, Any]:
    """What the measurements apply to: the machine, the versions, the settings and the network."""
    import torch

    runtime = runtime_of(checkpoint)
    versions = {name: version(name) for name in ("timesformer-cli", "torch", "numpy", "av")}
    versions |= {"python": platform.python_version()} | dict(runtime.versions(checkpoint))
    return {
        "machine": {
            "processor": _processor(),
            "cores": available_cores(),
            "threads": runtime.threads(),
            "memory": _memory(),
            "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
            "system": platform.platform(),
        },
        "versions": versions,
        "settings": {
            "model": checkpoint.name,
            "recipe": checkpoint.recipe.name,
            "device": runtime.device_name(settings.run.device),
            "precision": settings.run.precision,
            "compile": settings.run.compile,
            "provider": settings.run.provider,
            "decoder": settings.run.reading.decoder,
            "workers": settings.run.processes,
            "seconds": settings.seconds,
            "videos": ["the clip of the package" if item.path == str(CLIP) else item.path for item in items],
        },
        "network": {"parameters": cost.parameters, "flops_per_view": cost.flops},
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    """The model name of the processor, or at least its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    """Bytes of the machine's memory; None if the system cannot tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def compare(report: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two reports, as `Report.to_dict` gives them.

    `differences` are those of machines, versions and settings. `times_as_fast` has the speed-up of each measurement
    over the earlier report, None if that does not have it.

    Raises:
        LookupError, TypeError, AttributeError, ZeroDivisionError: `earlier` is not a report.
    """
    about = ("machine", "versions", "settings")
    before = {(entry["stage"], entry["name"]): _pace(entry) for entry in earlier["measurements"]}
    keys = [(entry["stage"], entry["name"]) for entry in report["measurements"]]
    return {
        "differences": list(
            differences({name: earlier[name] for name in about}, {name: report[name] for name in about})
        ),
        "times_as_fast": [
            None if key not in before else _pace(entry) / before[key]
            for key, entry in zip(keys, report["measurements"], strict=True)
        ],
    }


def _pace(entry: Mapping[str, Any]) -> float:
    """Rounds per second, or counts per second; for matrix products, FLOP/s, as their best size may differ."""
    rates = [entry["flops_per_second"]] if entry["stage"] == "matrix product" else list(entry["per_second"].values())
    return float(rates[0] if rates else 1 / entry["seconds"]["median"])
