"""A model that is trained again in place."""

from pathlib import Path

import torch

from timesformer_cli import TimesformerForVideoClassification


def train_again(folder: Path) -> None:
    """Replace the weights under the same names; everything else stays as it is."""
    network = TimesformerForVideoClassification.from_pretrained(folder)
    with torch.no_grad():
        network.classifier.bias[0] += 1
    network.save_pretrained(folder)
