"""An explanation in words: a sentence for each altered clip, and one for all."""

from collections.abc import Iterator

from timesformer_cli.jobs.explain.records import OUTSIDE, WITHOUT_LABEL, Counterfactual, Explanation, Map, Total

CAVEAT = "A map tells where the score comes from, not what the model sees there."

TITLES = {
    "single_frame": "only one frame",
    "shuffled": "frames in another order",
    "reversed": "time reversed",
    "still": "without motion (mean frame)",
}

_KEPT = {
    "single_frame": "one frame is enough",
    "shuffled": "their order does not matter",
    "reversed": "the direction of time does not matter",
    "still": "it needs no motion",
}
_LOST = {
    "single_frame": "it needs more than one frame",
    "shuffled": "it needs their order",
    "reversed": "it needs the direction of time",
    "still": "it needs motion",
}


def meaning(altered: Counterfactual, explanation: Explanation) -> str:
    """What an altered clip tells, in a few words."""
    if explanation.constant:
        return "all frames of this clip are the same"
    if altered.keeps(explanation.score):
        return _KEPT[altered.name]
    if altered.name == "reversed" and altered.label != explanation.label:
        return f"now: {altered.label}"
    return _LOST[altered.name]


def summary(explanation: Explanation) -> str:
    """What the label rests on, in a sentence."""
    if explanation.constant:
        return "All frames of this clip are the same: the label rests on how they look."
    kept = {each.name for each in explanation.counterfactuals if each.keeps(explanation.score)}
    if {"single_frame", "shuffled", "reversed"} <= kept:
        return "It is recognised by its look: one frame is enough, and order does not matter."
    if not {"shuffled", "reversed"} <= kept:
        return "It needs the order of its frames."
    return "It needs more than one frame, in any order."


def frames_sentence(explanation: Explanation) -> str:
    if explanation.frames.alike:
        return "all alike: no single moment decides"
    place = explanation.frames.outlier
    against = "" if explanation.frames.values[place] >= 0 else " against it"
    return f"most{against} at {explanation.times[place]:.2f} s"


def map_sentence(explanation: Explanation) -> str:
    """How far to trust the map."""
    found = explanation.map
    if found is None:
        return f"none: an exported model gives no gradients; these methods run: {', '.join(OUTSIDE)}"
    text = found.verdict
    if found.check is not None:
        gaps = ", ".join(f"{_rounded(gap):+.2f} ({fill})" for fill, gap in found.check.gap.items())
        text = f"gap {gaps}: {text}"
    if found.method in WITHOUT_LABEL:
        text += "; it does not depend on the label"
    if found.total is not None and not found.total.reached:
        text += f"; {_total(found.total)}"
    return text


def _total(total: Total) -> str:
    return f"its integrated gradients add up to {total.sum:.2f} instead of {total.of:.2f}, after {total.points} points"


def total_sentence(found: Map) -> str:
    """What the shares of a map add up to; empty if its values are no shares of logits, or its words say it already."""
    total = found.total
    if total is None or not total.reached:
        return ""
    if total.points is not None:
        return f"Integrated gradients add up to {total.sum:.2f}; the logits differ by {total.of:.2f}."
    kept = "biases, the softmax of attention and the class token keep the rest"
    return f"The shares of the patches add up to {total.sum:.2f} of {total.of:.2f} in logits; {kept}."


def block(explanation: Explanation) -> Iterator[str]:
    """The lines for a terminal."""
    times = explanation.times
    label = explanation.label if explanation.against is None else f"{explanation.label} versus {explanation.against}"
    yield f"{explanation.item.path}   {times.min():.1f} to {times.max():.1f} s   {label} {percent(explanation.score)}"
    yield f"  {summary(explanation)}"
    for each in explanation.counterfactuals:
        yield f"  {TITLES[each.name]:30}{percent(each.score):>8}   {meaning(each, explanation)}"
    values = " ".join(f"{_rounded(value):.2f}" for value in _by_group(explanation))
    yield f"  frames    {values}   {frames_sentence(explanation)}"
    name = "map" if explanation.map is None else f"map ({explanation.map.method})"
    yield f"  {name:10}  {map_sentence(explanation)}"
    view = explanation.view
    yield f"  This is clip {view.clip}, {view.crop} crop, view {explanation.number + 1} of {explanation.views}."
    if explanation.map is not None:
        yield CAVEAT


def _by_group(explanation: Explanation) -> list[float]:
    groups = explanation.frames.groups.tolist()
    return [float(explanation.frames.values[groups.index(group)]) for group in sorted(set(groups))]


def _rounded(value: float) -> float:
    """To two digits, without a minus at zero."""
    return round(value, 2) + 0.0


def percent(score: float) -> str:
    return f"{100 * score:.1f} %"
