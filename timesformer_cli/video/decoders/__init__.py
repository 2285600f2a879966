"""The decoding backends behind `timesformer_cli.video.reader.open_video`. Importing one imports its library."""
