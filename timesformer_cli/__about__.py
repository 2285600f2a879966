__version__ = "0.1.0"

# What is taken if no model is named. It stands here because the help of the command loads nothing larger.
DEFAULT_MODEL = "base-k400"
