"""What runs on the nodes of a Ray cluster: tasks that read videos, and networks that score their views."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from timesformer_cli.errors import TimesformerError
from timesformer_cli.flow import Failure, Item, Scored, Views
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.pipeline.score import scored_views
from timesformer_cli.runtimes import runtime_of
from timesformer_cli.runtimes.devices import available_cores
from timesformer_cli.runtimes.ports import Output
from timesformer_cli.specs import Checkpoint, Recipe


@dataclass(frozen=True, slots=True)
class Node:
    """Where a task or a network runs, by Ray's number and by the address of the machine."""

    number: str
    address: str


def here() -> Node:
    ray = importlib.import_module("ray")
    return Node(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address())


def read(items: list[Item], recipe: Recipe, run: RunOptions, asked: dict[str, Any]) -> Iterator[Any]:
    """A task of Ray: read videos in a separate process, so that a hang or a crash costs only one video.

    Yields the node, then for each span a Failure, or None and then its Views. The caller fetches only what is small.
    """
    yield here()
    with run.prepare(items, recipe, **asked) as prepared:
        for views in prepared:
            if isinstance(views, Failure):
                yield views
            elif views is not None:
                yield None
                yield views


class Network:
    """An actor of Ray. It loads the network when asked, so that waiting for a place and loading can be told apart."""

    def __init__(self, checkpoint: Checkpoint, run: RunOptions, output: Output = "logits") -> None:
        self._checkpoint, self._run, self._output = checkpoint, run, output
        self._told: list[str] = []

    def where(self) -> Node:
        return here()

    def load(self) -> TimesformerError | None:
        """Load the network. Errors are returned: raised here, they would reach the caller as different ones."""
        # Ray has set the cores to the CPUs that it counts for the actor.
        runtime_of(self._checkpoint).use_cores(available_cores())
        try:
            self._scorer = self._run.open(self._checkpoint, self._told.append, self._output)
            self._size = self._run.batch(self._scorer, self._told.append)
        except TimesformerError as error:
            return error
        return None

    def score(self, *views: Views) -> tuple[list[str], list[Scored] | TimesformerError]:
        """Messages since the last call, and the logits of each span; or the error that ends the run."""
        try:
            logits = self._size.score(self._scorer, np.concatenate([each.pixels for each in views]))
        except TimesformerError as error:
            return [], error
        parts = np.split(logits, np.cumsum([len(each.pixels) for each in views])[:-1])
        told, self._told[:] = self._told.copy(), []
        return told, [scored_views(each, part) for each, part in zip(views, parts, strict=True)]
