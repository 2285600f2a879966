"""Messages in the words of the command line: elsewhere in the package, settings have their names in Python."""

import re
from collections.abc import Mapping
from types import MappingProxyType

# The option for each setting of the package, by the name of its field or parameter there.
NAMES: Mapping[str, str] = MappingProxyType(
    {
        name: f"--{name.replace('_', '-')}"
        for name in (
            *("model", "revision", "offline", "weights", "config", "labels", "recipe"),
            *("clips", "crops", "num_frames", "stride", "fps", "placement"),
            *("timeline", "window", "hop", "merge"),
            *("frames", "frame_rate", "decoder", "timeout", "max_pixels", "max_frames", "workers"),
            *("device", "precision", "compile", "provider", "batch_size"),
            *("limit", "shard", "engine", "ray_address", "fail_fast"),
            *("format", "output", "overwrite", "resume", "retry_errors"),
            *("top_k", "threshold", "raw_logits", "save_logits", "save_embeddings", "copy_to", "link", "groups"),
            *("labelled", "by", "logits"),
            *("min_precision",),
            *("annotations", "annotations_format", "split", "label_map", "classes", "seed", "strict"),
            *("from_predictions", "min_top1"),
            *("val", "val_part", "group_by", "shots", "balance", "method"),
            *("layers", "rank", "epochs", "patience", "lr", "augment", "flip", "checkpointing", "micro_batch"),
            *("weight_decay", "layer_decay", "drop_path"),
            *("quantize", "calibrate", "input", "opset", "external_data", "out", "check"),
            *("against", "feature", "dtype", "normalize", "per_video"),
            *("against", "like"),
            *("label", "versus", "clip", "at", "fill", "checks"),
        )
    }
    | {"labels_file": "--labels", "settings": "--set", "max_seconds": "--max-time"}
)

# A setting is `name` or `name=value`, or a word of our commands: `timesformer models download NAME revision=v2`.
_SETTING = re.compile(r"`(\w+)(?:=([^`]+))?`")
_COMMAND = re.compile(r"`timesformer [^`]+`")
_WORD = re.compile(r"(?<= )(\w+)=(?=[^\s`])")


def spoken(message: str) -> str:
    """The message with options instead of settings: "try `device=cpu`" becomes "try --device cpu".

    Other text between backticks stays as it is.
    """
    message = _COMMAND.sub(lambda command: _WORD.sub(_word, command[0]), message)
    return _SETTING.sub(_setting, message)


def _setting(found: re.Match[str]) -> str:
    option = NAMES.get(found[1])
    if option is None:
        return found[0]
    return option if found[2] is None else f"{option} {found[2]}"


def _word(found: re.Match[str]) -> str:
    option = NAMES.get(found[1])
    return found[0] if option is None else f"{option} "
