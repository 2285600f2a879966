"""Turn a training run into a model folder: weights in float16, config, recipe.

python training/camera_motion/bundle.py training/camera_motion/runs/divided timesformer_cli/bundled/camera-motion
"""

import argparse
from pathlib import Path

import torch
from train import PREPROCESS, SAMPLING, make_config

from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.checkpoints.folder import save_recipe
from timesformer_cli.specs import Recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder that train.py wrote")
    parser.add_argument("folder", type=Path, help="model folder to write")
    options = parser.parse_args()
    checkpoint = torch.load(options.run / "checkpoint.pt", map_location="cpu", weights_only=True)
    model = TimesformerForVideoClassification(make_config(checkpoint["settings"]["attention"]))
    model.load_state_dict(checkpoint["model"])
    model.half().save_pretrained(options.folder)
    save_recipe(options.folder, Recipe(base="camera-motion", sampling=SAMPLING, preprocess=PREPROCESS))


if __name__ == "__main__":
    main()
