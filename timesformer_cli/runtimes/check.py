"""Options of a run against the format of a model, before anything heavy is loaded."""

from timesformer_cli.checkpoints.exported import Provider, is_exported, read_metadata
from timesformer_cli.errors import UsageError
from timesformer_cli.specs import Checkpoint


def check_options(checkpoint: Checkpoint, *, precision: str, compile: bool, provider: Provider) -> None:
    """Raise UsageError for options that mean nothing to a model in this format."""
    path = checkpoint.weights
    if path is None or not is_exported(path):
        if provider != "auto":
            raise UsageError(f"`provider={provider}` goes with models of ONNX, and {checkpoint.name} is none")
        return
    if provider != "auto" and path.suffix != ".onnx":
        raise UsageError(f"`provider={provider}` goes with models of ONNX, and {path} is none")
    if precision != "auto":
        stated = read_metadata(path).get("precision")
        fixed = f"was exported in {stated}" if stated else "computes in what it was exported in"
        raise UsageError(f"`precision={precision}`: {path} {fixed}; leave the option out, or export it anew")
    if compile:
        raise UsageError(f"`compile`: {path} was exported, and its runtime compiles it; leave the option out")
