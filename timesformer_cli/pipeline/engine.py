"""Videos through the network, on this machine or on a cluster."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from timesformer_cli.flow import Failure, Item, Scored
from timesformer_cli.pipeline.prepare import Thumbnails
from timesformer_cli.pipeline.ray import score_on_cluster
from timesformer_cli.pipeline.run import RunOptions, Tell, silent
from timesformer_cli.pipeline.score import score
from timesformer_cli.runtimes import runtime_of
from timesformer_cli.runtimes.ports import Output, Scorer
from timesformer_cli.specs import Checkpoint, Timeline


@contextmanager
def score_all(
    items: Iterable[Item],
    checkpoint: Checkpoint,
    run: RunOptions,
    *,
    timeline: Timeline | None = None,
    thumbnails: Thumbnails | None = None,
    hashes: bool = False,
    output: Output = "logits",
    tell: Tell = silent,
    opened: Callable[[], Scorer] | None = None,
) -> Iterator[Iterator[Scored | Failure]]:
    """The logits, or the class tokens, of each span of each item, in order, for as long as the context lasts.

    `thumbnails` and `hashes` are as for `prepare_spans`, and `output` as for `RunOptions.open`. `opened` gives the
    network if it is already loaded; a cluster loads its own.

    Raises:
        TimesformerError: as `RunOptions.open`, `score` and, on a cluster, `score_on_cluster`.
    """
    if run.cluster is not None:
        yield score_on_cluster(
            items, checkpoint, run, timeline=timeline, thumbnails=thumbnails, hashes=hashes, output=output, tell=tell
        )
        return
    levels = runtime_of(checkpoint).takes_levels(checkpoint)
    recipe = checkpoint.recipe
    with run.prepare(items, recipe, timeline=timeline, thumbnails=thumbnails, hashes=hashes, levels=levels) as prepared:
        # Importing torch takes seconds; meanwhile the first videos are read.
        scorer = run.open(checkpoint, tell, output) if opened is None else opened()
        yield score(prepared, scorer, run.batch(scorer, tell))
