"""What workers are asked to do in the tests. They import this file by its name."""

import ctypes
import os
import sys
import time

import numpy as np

from timesformer_cli.errors import VideoError
from timesformer_cli.workers import Done


class OddError(Exception):
    """An error that does not survive pickling: it asks for two arguments and keeps one."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def act(item: str) -> Done:
    """Do what `item` says: a verb, and after a colon a number."""
    verb, _, number = item.partition(":")
    if verb == "sleep":
        time.sleep(float(number))
    elif verb == "hang":  # in native code that holds the interpreter's lock
        ctypes.PyDLL(None).sleep(1000)
    elif verb == "segfault":
        os.kill(os.getpid(), 11)
    elif verb == "exit":
        os._exit(int(number))
    elif verb == "eat":
        np.ones(int(float(number) * 2**30), np.uint8)
    elif verb == "refuse":
        raise VideoError("decode", "damaged")
    elif verb == "mistake":
        raise ZeroDivisionError("a mistake")
    elif verb == "odd":
        raise OddError("first", "second")
    elif verb == "print":
        print("noise")
        os.write(2, b"noise\n")
        sys.stderr.write("noise\n")
    return Done(
        {"item": item, "process": os.getpid()}, np.full((2, int(float(number or 0)) % 7), len(item), np.float32)
    )
