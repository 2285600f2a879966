"""The same network, and the same views of frames, made by transformers. Importing this is slow, or skips the test."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

transformers = pytest.importorskip("transformers")


def counterpart(network: Any) -> Any:
    """The same network in transformers, with the same weights, loaded strictly."""
    other = transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig.from_dict(network.config.to_dict())
    )
    other.load_state_dict(network.state_dict(), strict=True)
    return other.to(next(network.parameters()).dtype).eval()


def processor_views(pixels: NDArray[np.uint8], **settings: Any) -> NDArray[np.float32]:
    """float32 (1, T, C, H, W): frames (T, H, W, 3) as the image processor with these settings makes them."""
    processor = transformers.VideoMAEImageProcessorPil(**settings)
    return np.asarray(processor(list(pixels), return_tensors="np")["pixel_values"])
