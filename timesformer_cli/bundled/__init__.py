"""Files that come with the package: a model, and a clip for measuring and verifying."""

from pathlib import Path

# A folder with config.json, weights, processor and recipe.
CAMERA_MOTION = Path(__file__).parent / "camera-motion"

# Four seconds of 360 x 640 pixels.
CLIP = Path(__file__).with_name("clip.mp4")
