"""Label videos with TimeSformer: divided space-time attention for video classification."""

from typing import TYPE_CHECKING, Any

from timesformer_cli.__about__ import __version__

if TYPE_CHECKING:
    from timesformer_cli.api import Model, embed, label, label_all, open_model
    from timesformer_cli.flow import Failure, Label, Prediction
    from timesformer_cli.network.model import TimesformerForVideoClassification, TimesformerModel
    from timesformer_cli.pipeline.run import RunOptions
    from timesformer_cli.specs import TimesformerConfig

__all__ = [
    "Failure",
    "Label",
    "Model",
    "Prediction",
    "RunOptions",
    "TimesformerConfig",
    "TimesformerForVideoClassification",
    "TimesformerModel",
    "__version__",
    "embed",
    "label",
    "label_all",
    "open_model",
]

# Importing torch takes seconds, and the help of the command imports this package: names load on first use.
_HOME = {
    "label": "api",
    "label_all": "api",
    "embed": "api",
    "open_model": "api",
    "Model": "api",
    "Failure": "flow",
    "Label": "flow",
    "Prediction": "flow",
    "RunOptions": "pipeline.run",
    "TimesformerConfig": "specs",
    "TimesformerModel": "network.model",
    "TimesformerForVideoClassification": "network.model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
