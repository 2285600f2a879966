__version__ = "0.1.0"

# The default model. It is here because the help of the command must not import anything larger.
DEFAULT_MODEL = "base-k400"
