"""Imported only by the server that forks the workers, before anything else: its last words belong in no output.

What they mean, the process that started it says in one line.
"""

import os

_sink = os.open(os.devnull, os.O_WRONLY)
for _stream in (1, 2):
    os.dup2(_sink, _stream)
os.close(_sink)
