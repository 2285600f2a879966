"""The network behind a function: NumPy views in, NumPy logits out, on the requested device."""

import os
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from timesformer_cli.checkpoints.exported import Provider
from timesformer_cli.errors import DeviceError, UsageError
from timesformer_cli.flow import Pixels
from timesformer_cli.runtimes.devices import Precision, available_cores, check_device, find_device
from timesformer_cli.runtimes.ports import Output, Scorer
from timesformer_cli.specs import Checkpoint

if TYPE_CHECKING:
    import torch

    from timesformer_cli.network.model import TimesformerForVideoClassification

# The dtypes that the network computes in. Logits are always float32.
Dtype = Literal["fp32", "bf16", "fp16"]

# Pixels (B, T, C, H, W), on its device and in its dtype, to what an `Output` says, float32.
Network = Callable[["torch.Tensor"], "torch.Tensor"]


def check(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    compile: bool,
    provider: Provider,
    output: Output = "logits",
) -> None:
    if provider != "auto":
        raise UsageError(f"`provider={provider}` is only for ONNX models, and {checkpoint.name} is not one")


def open_scorer(
    checkpoint: Checkpoint,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    compile: bool = False,
    provider: Provider = "auto",
    tell: Callable[[str], None] = lambda _: None,
    output: Output = "logits",
) -> Scorer:
    """The checkpoint's network, loaded and ready; `device` is one of `devices.DEVICES`.

    `compile` compiles it first, which takes about a minute. `tell` gets one sentence when that begins and one
    when it is done, or the reason why the network runs without it.

    Raises:
        UsageError: a device of an unknown kind, or a provider; checked before torch is imported.
        DeviceError: this machine lacks the device, or the device cannot compute in the precision.
        CheckpointError: weights are missing, unreadable, or do not fit the config.
    """
    check_device(device)
    check(checkpoint, precision=precision, compile=compile, provider=provider)
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > available_cores():
        torch.set_num_threads(available_cores())  # torch does not know of a container's quota
    target = find_device(device)
    chosen = choose_precision(precision, device)
    network = _open_network(checkpoint, target, torch_dtype(chosen), tell, compile=compile, output=output)
    return scorer_with(network, target, chosen)


def scorer_of(
    open_model: "Callable[[], TimesformerForVideoClassification]", *, device: str, precision: Precision
) -> Scorer:
    """A scorer for networks in training: with the weights that those of `open_model` have now.

    `open_model` is as for `InferenceNetwork`.

    Raises:
        DeviceError: this machine lacks the device, or the device cannot compute in the precision.
    """
    from timesformer_cli.network.inference import InferenceNetwork

    target = find_device(device)
    chosen = choose_precision(precision, device)
    return scorer_with(InferenceNetwork(open_model, device=target, dtype=torch_dtype(chosen)), target, chosen)


def scorer_with(network: Network, target: "torch.device", precision: Dtype) -> Scorer:
    """A scorer that runs views through `network`, which is on the device `target`."""
    import torch

    dtype = torch_dtype(precision)

    def score(views: Pixels) -> NDArray[np.float32]:
        # torch shares the memory of an array, and warns if it is read-only.
        pixels = torch.from_numpy(np.require(views, requirements=["C", "W"]))
        try:
            with torch.inference_mode():
                logits: NDArray[np.float32] = network(_upload(pixels, target).to(dtype)).cpu().numpy()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            message = str(error).partition("\n")[0]
        else:
            if precision == "fp16" and not np.isfinite(logits).all():
                raise DeviceError("`precision=fp16`: numbers in this network are too large for it; try bf16 or fp32")
            return logits
        # Outside the handler, which would keep alive everything that the attempt allocated.
        if target.type == "cuda":
            torch.cuda.empty_cache()
        raise MemoryError(message)

    return score


def _open_network(
    checkpoint: Checkpoint,
    target: "torch.device",
    dtype: "torch.dtype",
    tell: Callable[[str], None],
    *,
    compile: bool,
    output: Output,
) -> Network:
    """The network, compiled if that was asked for and is possible.

    Softmax and LayerNorm compute in float32 anyway. The head stays in float32, since rounded logits make classes tie.
    Autocast would keep the values between layers in float32 too, at the cost of memory traffic. Logits then come a
    quarter closer to those of fp32, but the answers do not.
    """
    import torch

    from timesformer_cli.network.inference import InferenceNetwork
    from timesformer_cli.network.model import TimesformerForVideoClassification

    told: set[str] = set()

    def tell_once(text: str) -> None:
        if text not in told:  # the file is opened several times
            told.add(text)
            tell(text)

    open_model = partial(TimesformerForVideoClassification.from_checkpoint, checkpoint, tell=tell_once)
    network: Network | None = None
    if compile and output in ("mean", "frames"):
        tell("`compile`: continuing without it; only class tokens and logits come from compiled code")
    elif compile and target.type == "cpu":
        tell("`compile`: continuing without it, since on the CPU the network is faster than PyTorch's compiled code")
    elif compile:
        view = (checkpoint.sampling.num_frames, checkpoint.config.num_channels, *checkpoint.preprocess.size)
        network = _compile(open_model(), torch.zeros(2, *view, device=target, dtype=dtype), tell, output)
    if network is not None:
        return network
    inference = InferenceNetwork(open_model, device=target, dtype=dtype, patches=output in ("mean", "frames"))
    ways: Mapping[Output, Network] = {
        "logits": inference,
        "embedding": inference.embed,
        "both": inference.both,
        "mean": inference.mean,
        "frames": inference.frames,
    }
    return ways[output]


def choose_precision(asked: Precision, device: str) -> Dtype:
    """`asked`, or bf16 on a GPU that computes in it natively, else fp32; `device` is one of `devices.DEVICES`.

    Raises:
        DeviceError: this machine lacks the device; or fp16 on the CPU.
    """
    import torch

    target = find_device(device)
    if asked == "fp16" and target.type == "cpu":
        raise DeviceError("`precision=fp16`: it is several times slower than fp32 on the CPU; try bf16 or fp32")
    if asked != "auto":
        return asked
    native = target.type == "cuda" and torch.cuda.get_device_capability(target) >= (8, 0)
    return "bf16" if native else "fp32"


def torch_dtype(precision: Dtype) -> "torch.dtype":
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def precision_of(checkpoint: Checkpoint, asked: Precision, device: str) -> str:
    return choose_precision(asked, device)


def precisions(asked: Precision, device: str) -> tuple[Precision, ...]:
    """`asked`, or fp32 and the other precisions that the device computes in natively.

    Raises:
        DeviceError: this machine lacks the device, or the device cannot compute in the precision.
    """
    chosen = choose_precision(asked, device)
    if asked != "auto":
        return (chosen,)
    import torch

    target = find_device(device)
    if target.type == "cuda":
        return ("fp32", "bf16", "fp16") if torch.cuda.get_device_capability(target) >= (8, 0) else ("fp32", "fp16")
    if target.type == "mps":
        return ("fp32", "fp16")
    # Processors of Intel and AMD report it so, and those of ARM; PyTorch can tell from 2.10 on.
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return ("fp32", "bf16") if any(known.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16")) else ("fp32",)


def device_name(device: str) -> str:
    return str(find_device(device))


def cluster_device(device: str, provider: Provider) -> str:
    return device


def versions(checkpoint: Checkpoint) -> Mapping[str, str]:
    return {"torch": version("torch")}


def takes_levels(checkpoint: Checkpoint) -> bool:
    return False


def load_library() -> None:
    import torch  # noqa: F401


def threads() -> int:
    import torch

    return torch.get_num_threads()


def use_cores(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def _compile(
    model: "TimesformerForVideoClassification",
    views: "torch.Tensor",
    tell: Callable[[str], None],
    output: Output = "logits",
) -> Network | None:
    """The network, compiled for the device and dtype of the views and tried on both; None if that is impossible."""
    import torch

    model.timesformer.to(views.device, views.dtype)
    model.classifier.to(views.device)

    def network(pixels: "torch.Tensor") -> "torch.Tensor":
        cls = model.timesformer(pixels).last_hidden_state[:, 0].float()
        if output == "embedding":
            return cls  # type: ignore[no-any-return]
        logits: torch.Tensor = model.classifier(cls)
        return logits if output == "logits" else torch.cat([cls, logits], 1)

    tell("`compile`: compiling the network, which takes about a minute")
    begin = time.perf_counter()
    encoder, layers = model.timesformer.encoder, model.timesformer.encoder.layer
    try:
        # Layers are alike, so compiling one compiles all; compiling the whole network would take many times longer.
        encoder.layer = torch.nn.ModuleList(
            cast("torch.nn.Module", torch.compile(layer, dynamic=True)) for layer in layers
        )
        # Dynamic sizes start at 2; 1 always gets its own code. So no further batch size triggers a compilation.
        with torch.inference_mode():
            for batch in (views, views[:1]):
                network(batch)
    except Exception as error:  # compilers raise anything; without them the network gives the same
        encoder.layer = layers
        reason = " ".join(str(error).partition("\n\n")[0].split())
        tell(
            f"`compile`: continuing without it, since PyTorch cannot compile the network here ({reason}); "
            "Triton and a C compiler are needed"
        )
        return None
    tell(f"`compile`: compiled the network in {time.perf_counter() - begin:.0f} seconds")
    return network


def _upload(pixels: "torch.Tensor", target: "torch.device") -> "torch.Tensor":
    """To CUDA through pinned memory, so that the copy overlaps with queueing the first kernels."""
    if target.type == "cuda":
        # torch keeps the pinned blocks and uses them again.
        return pixels.pin_memory().to(target, non_blocking=True)
    return pixels.to(target)


# torch's messages if it cannot allocate: on CUDA and MPS, in cuBLAS, and on the CPU of Linux and Windows.
_OUT_OF_MEMORY = re.compile(r"out of memory|CUBLAS_STATUS_ALLOC_FAILED|can't allocate memory|not enough memory")


def is_out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None
