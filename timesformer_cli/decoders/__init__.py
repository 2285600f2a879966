"""The decoding backends behind `timesformer_cli.video.open_video`. Importing one imports its library."""
