"""`python -m timesformer_cli`, for use if the console script is not on the path."""

from timesformer_cli.cli import main

if __name__ == "__main__":
    main()
