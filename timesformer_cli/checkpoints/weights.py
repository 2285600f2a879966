"""Weights on disk: reading and writing state dicts of any origin. Only tensors and plain data are unpickled."""

import gc
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from timesformer_cli.checkpoints.folder import describe_adapter, shards_in
from timesformer_cli.checkpoints.layouts import prefixes_of
from timesformer_cli.errors import CheckpointError
from timesformer_cli.files import whole

# Keys under which training code stores the state dict, in the order in which they are tried: weights as they were
# trained come before their moving averages.
_WRAPPERS = (
    *("model_state", "model_state_dict", "state_dict", "model", "net", "module"),
    *("ema", "model_ema", "state_dict_ema", "ema_state_dict"),
)

# Prefixes that wrappers of a network put before all names: parallel training, torch.compile, the original code.
_PREFIXES = ("module.", "_orig_mod.", "model.")
# A network under these belongs to the file itself, if another one lies beside it: Lightning and PEFT add theirs.
_OWN_PREFIX = re.compile(r"((module|_orig_mod|model|net|network|base_model)\.)*")

# What counters of operations (thop) and averages of weights (torch's AveragedModel) leave among the tensors.
_COUNTERS = ("total_ops", "total_params", "n_averaged")
# In names of PEFT as long as an adapter is not merged into the network.
_ADAPTER = re.compile(r"(^|\.)(lora_|(base_layer|original_module|modules_to_save)\.)")

# So many mappings may lie in one another, of which the innermost is the state dict.
_DEEPEST = 4

# Entries beside the state dict that tell how it was trained: text and plain data, no tensors.
_EXTRAS = ("cfg", "meta", "timesformer_cli")


class _Inert:
    """Stands for an object that only training code needs; its content is dropped."""

    def __init__(self, *ignored: object) -> None:
        pass

    def __setstate__(self, ignored: object) -> None:
        pass


# Losses and scores that training code stored as NumPy numbers, the class in which mmengine stores them, and those in
# which scripts store their settings. The unpickler looks these names up, and finds a class that does nothing.
_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Inert, name)
    for name in (
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "mmengine.logging.history_buffer.HistoryBuffer",
        "argparse.Namespace",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
    )
]
# Dictionaries in which Lightning stores settings; torch fills only dictionaries of Python.
_STAND_INS += [
    (OrderedDict, f"{module}.AttributeDict")
    for module in (
        "lightning.fabric.utilities.data",
        "lightning_fabric.utilities.data",
        "pytorch_lightning.utilities.parsing",
    )
]

# Compressed parts of an archive may unpack to this many bytes, or this many times the file if that is more. Floats
# hardly compress, and the largest published network with its optimizer's state takes 1.5 GB uncompressed.
_LARGEST_UNPACKED, _LARGEST_RATIO = 2**30, 4


@dataclass(frozen=True, slots=True)
class Stored:
    """The content of the weight file `path`: tensors under their stored names, and what lies beside them.

    `state` is memory-mapped on the CPU if the file's form allows it, in the stored dtypes; wrappers, and
    prefixes of the network's names, are removed. `extras` holds those of `cfg`, `meta` and
    `timesformer_cli` that the file has, unchecked. `left_out` says in words what weights the file has besides, if any.
    """

    path: Path
    state: dict[str, Tensor]
    extras: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """One sentence about all that was left out; None if nothing was."""
        return f"{self.path}: {'; '.join(self.left_out)}" if self.left_out else None


def read_state_dict(
    path: Path, parameters: int | None = None, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Tensor]:
    """The tensors of a weight file: `read_stored` without its extras; `tell` gets its note.

    With the number of `parameters` that are expected, a compressed file may unpack to no more than these and the
    optimizer's state of them take.
    """
    largest = _LARGEST_UNPACKED if parameters is None else min(_LARGEST_UNPACKED, 2**26 + 16 * parameters)
    stored = read_stored(path, largest)
    if stored.note is not None:
        tell(stored.note)
    return stored.state


def read_stored(path: Path, largest: int = _LARGEST_UNPACKED) -> Stored:
    """Read `path`: safetensors, an index of shards, or a file saved by torch (.bin, .pyth, .pth, .pt).

    A file of torch is a state dict, or training code's mapping with one under `state_dict`, `model`, `ema` or the like;
    optimizer state and the like are ignored. A compressed file may unpack to `largest` bytes, or to a few times its
    size.

    Raises:
        CheckpointError: no such file, a missing shard, or a file that does not match its name, is
            damaged, or holds more than tensors and plain data, which is never run; or it holds several networks, or an
            adapter that is not merged into one.
    """
    if not path.name.endswith(".index.json"):
        return _only_network(_read_file(path, largest))
    state: dict[str, Tensor] = {}
    left_out: list[str] = []
    for shard in _shards(path):
        part = _read_file(shard, largest)
        state |= part.state
        left_out += part.left_out
    return _only_network(Stored(path, state, left_out=tuple(dict.fromkeys(left_out))))


def _shards(index: Path) -> list[Path]:
    try:
        shards = [index.with_name(name) for name in shards_in(index)]
    except ValueError as error:
        raise CheckpointError(f"{index}: {error}") from error
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(
                f"{index}: it lists {shard.name!r}, which is not a file beside it; is a shard missing?"
            )
    return shards


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause the garbage collector.

    A checkpoint's many small objects trigger a full collection of everything that `import torch` left,
    which takes longer than opening the checkpoint.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read_file(path: Path, largest: int) -> Stored:
    _refuse_other_files(path)
    try:
        if path.suffix == ".safetensors":
            return Stored(path, load_file(path))
        with torch.serialization.safe_globals(_STAND_INS), without_collection():
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_be_mapped(path, largest))
    except CheckpointError:
        raise
    except UnpicklingError as error:
        # torch's message advises loading without weights_only, so it stays in the traceback.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"holds {named[1]}, more than" if named else "is damaged, or holds more than"
        raise CheckpointError(
            f"{path}: refused, it {what} tensors and plain data; nothing in it was run; "
            "ask for a safetensors file, or for only the state dict"
        ) from error
    except Exception as error:  # damaged files raise almost anything
        reason = re.split(r"\n|\. |\.$", str(error))[0] or type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as weights; is the file complete? ({reason})") from error
    return _unwrap(content, path)


def _refuse_other_files(path: Path) -> None:
    """Raise CheckpointError for files that are often found, by mistake, where weights should be."""
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder; a weight file was expected")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if not start:
        raise CheckpointError(f"{path}: the file is empty; is the file complete?")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: a Git LFS pointer, not the weights; `git lfs pull` fetches them")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path}: a web page, not weights; download the file itself")
    # Weight files of every form have control characters near the start; in text, only white space.
    if not any(byte < 32 and byte not in b"\t\n\f\r" for byte in start):
        raise CheckpointError(f"{path}: a text file, not weights")


def _can_be_mapped(path: Path, largest: int) -> bool:
    """Whether torch can map `path`.

    Raises CheckpointError for a program, which torch would only warn about, and for a file that unpacks to too much.
    """
    # Files written before torch 1.6 are not zip archives, and a repacked archive may be compressed.
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise CheckpointError(f"{path}: a TorchScript program, not weights; ask for its state dict")
    packed = [entry.file_size for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if sum(packed) > max(largest, _LARGEST_RATIO * path.stat().st_size):
        raise CheckpointError(
            f"{path}: refused, it would unpack to {sum(packed) / 1e9:.1f} GB, more than such weights take; "
            "ask for a file that is not compressed"
        )
    return not packed


def _unwrap(content: object, path: Path) -> Stored:
    extras: dict[str, Any] = {}
    left_out: list[str] = []
    what = "it"
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            break
        wrappers = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
        if not wrappers:
            break
        extras = {name: content[name] for name in _EXTRAS if name in content} | extras
        if others := [name for name in wrappers[1:] if _holds_tensors(content[name])]:
            left_out.append(f"took its {wrappers[0]}, and left out its {', '.join(others)}, also weights")
        content, what = content[wrappers[0]], f"its {wrappers[0]}"
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: {what} is not a mapping of names to tensors")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {what} is not a mapping of names to tensors ({name!r} is not a tensor)")
        # A file can describe tensors that have no content, are sparse or quantised, or repeat a few numbers many times.
        if (
            tensor.device.type != "cpu"
            or tensor.layout != torch.strided
            or tensor.is_quantized
            or tensor.nbytes > tensor.untyped_storage().nbytes()
        ):
            raise CheckpointError(f"{path}: {name!r} is not an ordinary tensor")
    return Stored(path, {name: tensor.detach() for name, tensor in content.items()}, extras, tuple(left_out))


def _holds_tensors(content: Mapping[Any, Any], deepest: int = _DEEPEST) -> bool:
    """Whether it is a state dict, or wraps one."""
    inner = [content[name] for name in _WRAPPERS if deepest and isinstance(content.get(name), Mapping)]
    return any(isinstance(value, Tensor) for value in content.values()) or any(
        _holds_tensors(each, deepest - 1) for each in inner
    )


def _only_network(stored: Stored) -> Stored:
    """The tensors of the network, without counters, prefixes, and what lies beside it. Raises CheckpointError."""
    counters = [name for name in stored.state if name.rpartition(".")[2] in _COUNTERS]
    state = {name: tensor for name, tensor in stored.state.items() if name not in counters}
    if any(_ADAPTER.search(name) for name in state):
        raise CheckpointError(f"{stored.path}: {describe_adapter()}")
    while prefix := next((p for p in _PREFIXES if state and all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    left_out = list(stored.left_out)
    own, others = _networks(prefixes_of(state), stored.path)
    if others:
        left_out.append(f"left out the network under {', '.join(others)}, beside the one under {own or 'no name'}")
    kept = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(own) and not any(name.startswith(other) for other in others)
    }
    beside = [name for name in state if name not in kept and not any(name.startswith(other) for other in others)]
    if strangers := beside + counters:
        left_out.append(f"left out {_abridge(strangers)}, not part of the network")
    state = {name.removeprefix(own): tensor for name, tensor in kept.items()}
    return replace(stored, state=state, left_out=tuple(left_out))


def _networks(prefixes: list[str], path: Path) -> tuple[str, list[str]]:
    """The prefix of the network to read, and those of the others.

    Raises:
        CheckpointError: nothing tells which it is.
    """
    if len(prefixes) < 2:
        return (prefixes[0] if prefixes else ""), []
    usual = [prefix for prefix in prefixes if _OWN_PREFIX.fullmatch(prefix)]
    if len(usual) != 1:
        shown = " and ".join(prefix or "no name" for prefix in prefixes)
        raise CheckpointError(
            f"{path}: holds {len(prefixes)} networks, under {shown}; save the state dict of one of them, and name that "
            "file"
        )
    return usual[0], [prefix for prefix in prefixes if prefix != usual[0]]


def write_state_dict(folder: Path, state: dict[str, Tensor]) -> Path:
    """Write `folder/model.safetensors`, in the dtypes given; returns its path. Raises OSError."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    # The tensors may be mapped from the very file that this replaces.
    with whole(path) as part:
        try:
            save_file(tensors, part, metadata={"format": "pt"})
        except SafetensorError as error:  # for a full disk as well
            raise OSError(f"{path}: cannot be written; is the disk full? ({error})") from error
    return path


def check_state_dict(state: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> None:
    """Raise CheckpointError unless `state` has the keys and shapes of `expected`; the message names the keys.

    All tensors must be floating point, in any precision: the meaning of other numbers is known only to their writer.
    """
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    misshapen = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    other = [
        f"{name} ({str(state[name].dtype).removeprefix('torch.')})"
        for name in expected
        if name in state and not state[name].is_floating_point()
    ]
    found = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of a different shape", misshapen),
        ("not floating point", other),
    )
    problems = [f"{len(names)} {what}: {_abridge(names)}" for what, names in found if names]
    if problems:
        raise CheckpointError(f"{where}: the weights do not fit the config; keys {'; '.join(problems)}")


def _abridge(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
