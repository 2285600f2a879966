"""Tasks for workers in the tests. The workers import this file by its name."""

import ctypes
import errno
import os
import sys
import time
from collections.abc import Generator

import numpy as np

from timesformer_cli.errors import VideoError
from timesformer_cli.pipeline.workers import Done

# What tasks in a worker leave behind.
kept: list[object] = []


class OddError(Exception):
    """An error that does not survive pickling: it needs two arguments and keeps one."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def act(item: str, threads: int) -> Generator[Done]:
    """Do what `item` says: a verb, and after a colon a number. `parts:3` yields three of them."""
    verb, _, number = item.partition(":")
    if verb == "sleep":
        time.sleep(float(number))
    elif verb == "hang":  # in native code that holds the interpreter's lock
        ctypes.PyDLL(None).sleep(1000)
    elif verb == "segfault":
        os.kill(os.getpid(), 11)
    elif verb == "kill":  # from outside; with the name of a file, only once
        if not os.path.exists(number):
            open(number or os.devnull, "w").close()
            os.kill(os.getpid(), 9)
        number = ""
    elif verb == "exit":
        os._exit(int(number))
    elif verb == "eat":
        np.ones(int(float(number) * 2**30), np.uint8)
    elif verb == "hoard":  # and never give back, until there is no more
        while True:
            kept.append(np.ones(2**26, np.uint8))
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
    elif verb == "fill":  # shared memory, from now on
        os.posix_fallocate = refuse
    elif verb == "parts":
        for part in range(int(number) - 1):
            yield Done(part, np.full(1000, part, np.float32), more=True)
    elif verb == "slow":
        for part in range(int(number)):
            time.sleep(0.25)
            yield Done(part, np.zeros(1000, np.float32), more=True)
    elif verb == "break":  # after a good part
        yield Done(0, np.zeros(1000, np.float32), more=True)
        yield from act(number, threads)
        return
    value = {"item": item, "process": os.getpid(), "threads": threads}
    yield Done(value, np.full((2, int(float(number or 0)) % 7), len(item), np.float32))
