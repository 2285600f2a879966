"""The stages of a benchmark count what they do. How long it takes is no matter here."""

import json
import math
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from testing.artefacts import write_linear
from testing.clips import write_audio
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.errors import CheckpointError, DeviceError, InputError, UsageError
from timesformer_cli.flow import Item
from timesformer_cli.jobs.benchmark import CLIP as OWN_CLIP
from timesformer_cli.jobs.benchmark import (
    Duel,
    Measurement,
    Report,
    Settings,
    check_transformers,
    compare,
    measure,
    network,
    startup,
    videos,
)
from timesformer_cli.jobs.benchmark.figures import Stage, Timing
from timesformer_cli.jobs.benchmark.report import describe
from timesformer_cli.jobs.benchmark.rounds import repeat, take_turns
from timesformer_cli.jobs.benchmark.videos import Flow
from timesformer_cli.network.cost import Cost, measure_cost
from timesformer_cli.pipeline.run import RunOptions
from timesformer_cli.runtimes import pytorch
from timesformer_cli.specs import Checkpoint

# Networks as small as these are quick.
QUICK = Settings(
    run=RunOptions(device="cpu", workers=1),
    seconds=0.001,
    matrix_sizes=(8, 16),
    max_views=4,
    max_call=math.inf,
    min_gain=0,
)
COST = Cost(parameters=1, flops=1000)


class Clock:
    """Time that goes on by what each call takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def takes(self, *seconds: float) -> Any:
        """A call that takes so long each time, the last for ever after."""
        left = list(seconds)

        def call() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


class TestTiming:
    def test_the_middle(self) -> None:
        timing = Timing((1.0, 2.0, 4.0, 8.0))
        assert timing.median == 3
        assert timing.spread == (4 - 1) / 2 / 3

    def test_two_rounds_spread_as_far_as_they_are_apart(self) -> None:
        assert Timing((1.0, 3.0)).spread == 0.5

    @pytest.mark.parametrize(("rounds", "known"), [(9, []), (10, [90]), (99, [90]), (100, [90, 99])])
    def test_percentiles_need_rounds(self, rounds: int, known: list[int]) -> None:
        timing = Timing(tuple(float(number) for number in range(rounds)))
        for percent in (90, 99):
            expected = (rounds - 1) * percent / 100 if percent in known else None
            assert timing.percentile(percent) == (None if expected is None else pytest.approx(expected))


class TestRounds:
    def test_the_first_does_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock(monkeypatch)
        assert repeat(clock.takes(0.75, 0.25), 1).seconds == (0.25,) * 4

    def test_a_long_first_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock(monkeypatch)
        assert repeat(clock.takes(5, 3), 1).seconds == (5, 3)

    def test_they_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock(monkeypatch)
        assert len(repeat(clock.takes(0), 1).seconds) == 1000

    def test_turns_alternate(self) -> None:
        order: list[str] = []
        ours, theirs = take_turns(lambda: order.append("a"), lambda: order.append("b"), 0)
        assert "".join(order) == "ab" + "ba" + "ab"
        assert len(ours.seconds) == len(theirs.seconds) == 3

    def test_turns_are_kept_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock(monkeypatch)
        ours, theirs = take_turns(clock.takes(9, 1), clock.takes(9, 2, 4), 18)
        assert ours.seconds == (1,) * 4
        assert theirs.seconds == (2, 4, 4, 4)
        duel = Duel(name="", ours=ours, theirs=theirs, counts={})
        assert duel.ratios.tolist() == [2, 4, 4, 4]
        assert duel.to_dict()["times_as_fast"] == {"median": 4, "least": 2, "most": 4}


def test_rates() -> None:
    timing = Timing((2.0, 2.0))
    found = Measurement(stage="network", name="", timing=timing, counts={"views": 3}, flops=10, product=50)
    assert found.rates == {"views": 1.5}
    assert found.flops_per_second == 5
    assert found.to_dict()["share_of_matrix_product"] == 0.1


class TestReading:
    def test_what_is_counted(self, checkpoint: Checkpoint, items: list[Item]) -> None:
        fed = with_overrides(checkpoint, fields={"clips": 2, "crops": 3})
        decode, preprocess, both = videos.measure_reading(items, fed, QUICK)
        assert dict(decode.counts) == {"videos": 2, "frames": 2 * 2 * 4}
        assert dict(preprocess.counts) == {"videos": 2, "frames": 2 * 2 * 4, "views": 2 * 2 * 3}
        assert both.name == "both, 1 worker"
        # Two for each worker, of the same kind.
        assert dict(both.counts) == {"videos": 2, "frames": 16, "views": 12}
        assert all(each.timing.median > 0 for each in (decode, preprocess, both))

    def test_without_workers(self, checkpoint: Checkpoint, items: list[Item]) -> None:
        settings = Settings(run=RunOptions(device="cpu", workers=0), seconds=0.001)
        assert len(list(videos.measure_reading(items, checkpoint, settings))) == 2

    def test_a_video_that_cannot_be_read(self, checkpoint: Checkpoint, items: list[Item], tmp_path: Path) -> None:
        bad = Item(str(write_audio(tmp_path / "audio.mp4")))
        with pytest.raises(InputError, match=r"audio\.mp4: no video stream"):
            list(videos.measure_reading([*items, bad], checkpoint, QUICK))

    def test_the_lead_is_not_timed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock(monkeypatch)

        def results() -> Iterator[Any]:
            for seconds in (100, 50, 1, 2):
                clock.now += seconds
                yield "result"

        assert videos._flow(results(), 2) == 3

    @pytest.mark.parametrize(("rate", "count"), [(1, 8), (50, 100), (1e6, 1000)])
    def test_how_many_videos(self, rate: float, count: int) -> None:
        assert videos.how_many(rate, 2, 8) == count


class TestNetwork:
    def test_each_precision_by_batch(self, checkpoint: Checkpoint, view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
        found = list(network.measure_network(checkpoint, view, COST, QUICK, print))
        expected = [
            name
            for precision in ("fp32", "bf16")
            for name in (
                f"{precision}, square matrices",
                *(f"{precision}, {n}" for n in ("1 view", "2 views", "4 views")),
            )
        ]
        assert [each.name for each in found] == expected
        product, *batches = found[:4]
        assert product.flops in (2 * 8**3, 2 * 16**3)
        assert [(each.counts["views"], each.flops) for each in batches] == [(1, 1000), (2, 2000), (4, 4000)]
        assert {each.product for each in batches} == {product.flops_per_second}
        memory = [each.memory for each in batches]
        assert all(each is None or 2**24 < each < 2**36 for each in memory)

    @pytest.mark.parametrize(
        ("capabilities", "found"),
        [({}, ("fp32",)), ({"avx512_bf16": False}, ("fp32",)), ({"amx_bf16": True}, ("fp32", "bf16"))],
    )
    def test_precisions_of_the_processor(
        self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], found: tuple[str]
    ) -> None:
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities, raising=False)
        assert pytorch.precisions("auto", "cpu") == found

    @pytest.mark.parametrize(
        ("device", "capability", "found"),
        [
            ("cuda", (9, 0), ("fp32", "bf16", "fp16")),
            ("cuda:1", (7, 5), ("fp32", "fp16")),
            ("mps", None, ("fp32", "fp16")),
        ],
    )
    def test_precisions_of_gpus(
        self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, device: str, capability: Any, found: Any
    ) -> None:
        monkeypatch.setattr(pytorch, "find_device", torch.device)
        monkeypatch.setattr(pytorch, "choose_precision", lambda *_: "bf16")
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
        assert pytorch.precisions("auto", device) == found

    def test_memory_of_gpus_is_what_torch_holds(self, view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of the device that is asked for, and from the beginning of each measurement."""
        held = {"cuda:1": 99}
        monkeypatch.setattr("timesformer_cli.jobs.benchmark.settings.find_device", torch.device)
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: held.update({device: 0}))
        monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: held[device])

        def score(views: Any) -> Any:
            held["cuda:1"] = max(held["cuda:1"], 10 * len(views))
            return views

        settings = replace(QUICK, run=RunOptions(device="cuda:1"), max_views=2)
        found = network._by_batch(score, view, settings)
        assert [(count, memory) for count, _, memory in found] == [(1, 10), (2, 20)]

    def test_the_precision_that_was_asked_for(self, checkpoint: Checkpoint) -> None:
        assert pytorch.precisions("bf16", "cpu") == ("bf16",)
        with pytest.raises(DeviceError, match="fp16"):
            pytorch.precisions("fp16", "cpu")

    def test_batches_end_where_they_do_not_fit(self, view: Any) -> None:
        def score(views: Any) -> Any:
            if len(views) > 2:
                raise MemoryError
            return views

        assert [count for count, *_ in network._by_batch(score, view, QUICK)] == [1, 2]

    def test_batches_end_where_they_are_slow(self, view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock(monkeypatch)
        settings = Settings(run=RunOptions(device="cpu"), seconds=0.5, min_gain=0)
        found = network._by_batch(lambda views: clock.takes(len(views))(), view, settings)
        assert [count for count, *_ in found] == [1, 2]  # four would take longer than six times 0.5 s

    def test_batches_end_where_they_gain_nothing(self, view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock(monkeypatch)
        seconds = {1: 0.2, 2: 0.2, 4: 0.4, 8: 0.8}  # twice as many a second at two, and then no more
        settings = Settings(run=RunOptions(device="cpu"), seconds=1, max_views=64)
        found = network._by_batch(lambda views: clock.takes(seconds[len(views)])(), view, settings)
        assert [count for count, *_ in found] == [1, 2, 4, 8]

    def test_not_even_one_view(self, checkpoint: Checkpoint, view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: Any) -> Any:
            raise MemoryError

        monkeypatch.setattr("timesformer_cli.runtimes.pytorch.open_scorer", lambda *_, **__: full)
        with pytest.raises(DeviceError, match="a single view does not fit"):
            list(network.measure_network(checkpoint, view, COST, QUICK, print))

    def test_a_precision_that_overflows_is_left_out(
        self, checkpoint: Checkpoint, view: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def open_one(_: Any, *, precision: str, **__: Any) -> Any:
            def score(views: Any) -> Any:
                if precision == "fp16":
                    raise DeviceError("too large for it")
                return views

            return score

        monkeypatch.setattr("timesformer_cli.runtimes.pytorch.open_scorer", open_one)
        monkeypatch.setattr(pytorch, "precisions", lambda *_: ("fp32", "fp16"))
        told: list[str] = []
        found = list(network.measure_network(checkpoint, view, COST, QUICK, told.append))
        assert {each.name.partition(",")[0] for each in found} == {"fp32"}
        assert told == ["fp16 is left out: too large for it"]

    @pytest.mark.parametrize(("stated", "bound"), [({}, "fp32"), ({"precision": "bf16"}, "bf16")])
    def test_exported_models(
        self, checkpoint: Checkpoint, view: Any, tmp_path: Path, stated: dict[str, str], bound: str
    ) -> None:
        linear = replace(checkpoint, weights=write_linear(tmp_path / "model.onnx", metadata=stated))
        product, *batches = network.measure_network(linear, view, COST, QUICK, print)
        assert product.name == f"{bound}, square matrices"
        assert [each.name for each in batches] == [f"as exported, {n}" for n in ("1 view", "2 views", "4 views")]
        assert "onnxruntime" in describe(linear, [], QUICK, COST)["versions"]


def test_loading(checkpoint: Checkpoint, view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands still in a fresh process, and each takes four seconds of ours."""
    clock = Clock(monkeypatch)

    def load(*_: object) -> tuple[float, float, int]:
        clock.now += 4
        return 2, 1, 1000

    monkeypatch.setattr(startup, "_load_afresh", load)
    opened, first, both = startup.measure_load(checkpoint, view, QUICK)
    assert [each.timing.seconds for each in (opened, first, both)] == [(2, 2), (1, 1), (4, 4)]
    assert both.memory == 1000


def test_a_fresh_process(checkpoint: Checkpoint, view: Any) -> None:
    load, first, memory = startup._load_afresh(checkpoint, view, QUICK)
    assert load > 0
    assert first > 0
    if sys.platform == "linux":
        assert memory is not None
        assert 2**26 < memory < 2**36


def test_what_goes_wrong_in_a_fresh_process_is_told(checkpoint: Checkpoint, view: Any, tmp_path: Path) -> None:
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"model\.onnx"):
        startup._load_afresh(replace(checkpoint, weights=damaged), view, QUICK)


def test_a_fresh_process_that_dies(checkpoint: Checkpoint, view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(DeviceError, match="a process that loaded the model died"):
        startup._load_afresh(checkpoint, view, QUICK)


def test_what_libraries_print_in_a_fresh_process(capfd: pytest.CaptureFixture[str]) -> None:
    """They would spoil the answer, which goes where they print."""
    code = (
        "from timesformer_cli.jobs.benchmark import startup\n"
        "startup._load = lambda *_: (print('hello'), 1, 2)[1:]\n"
        "startup.serve_load()"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(()), capture_output=True, check=True)
    assert pickle.loads(done.stdout) == (1, 2)
    assert done.stderr.strip() == b"hello"


def test_the_whole_labels_as_predict_does(checkpoint: Checkpoint, items: list[Item]) -> None:
    found = videos.measure_whole(items, checkpoint, QUICK, Flow(1.0, 3), print)
    assert (found.name, dict(found.counts)) == ("predict, 1 worker", {"videos": 3})
    assert found.timing.median > 0


@pytest.mark.parametrize(
    ("workers", "reading", "network", "flow"),
    [
        (4, 10, 100, Flow(10, 4)),  # videos per second by the workers; views, four of each
        (4, 10, 20, Flow(5, 1)),
        (0, 10, 100, Flow(5, 1)),  # decoding and preprocessing in turns
    ],
)
def test_the_slower_stage_is_expected_to_hold_up_the_other(
    workers: int, reading: float, network: float, flow: Flow
) -> None:
    def found(stage: Stage, seconds: float, **counts: float) -> Measurement:
        return Measurement(stage=stage, name="", timing=Timing((seconds, seconds)), counts=counts)

    measurements = [found("reading", 1, videos=10), found("reading", 1, videos=10, views=40)]
    if workers:
        measurements.append(found("reading", 1, videos=reading, views=4 * reading))
    measurements += [found("network", 1, views=network / 2), found("network", 1, views=network)]
    assert videos.expected_flow(measurements, Settings(run=RunOptions(workers=workers))) == pytest.approx(flow)


def test_transformers_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="pip install transformers"):
        check_transformers()


def test_exported_models_have_no_weights_for_transformers(checkpoint: Checkpoint, tmp_path: Path) -> None:
    linear = replace(checkpoint, weights=tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="an exported model; give"):
        measure([], linear, QUICK, against=True)


def report(seconds: float, **about: Any) -> dict[str, Any]:
    whole = {"machine": {"cores": 2}, "versions": {"torch": "2.13.0"}, "settings": {"model": "a"}, **about}
    timing = Timing((seconds, seconds))
    kinds: list[dict[str, Any]] = [
        {"stage": "start", "name": "import torch"},
        {"stage": "network", "name": "fp32, 2 views", "counts": {"views": 2}, "flops": 8},
        {"stage": "matrix product", "name": "fp32", "flops": 8},
    ]
    return Report(whole, tuple(Measurement(timing=timing, **kind) for kind in kinds)).to_dict()


class TestComparison:
    def test_ratios(self) -> None:
        compared = compare(report(2), report(3))
        assert compared == {"differences": [], "times_as_fast": [1.5, 1.5, 1.5]}

    def test_rounds_of_other_sizes(self) -> None:
        """A round of twice as many in the same time is twice as fast."""
        now, before = report(1), report(1)
        now["measurements"][1]["per_second"]["views"] *= 2
        now["measurements"][2]["flops_per_second"] *= 3
        assert compare(now, before)["times_as_fast"] == [1, 2, 3]

    def test_what_the_earlier_one_does_not_have(self) -> None:
        before = report(1)
        del before["measurements"][1]
        assert compare(report(1), before)["times_as_fast"] == [1, None, 1]

    def test_differences(self) -> None:
        before = report(1, machine={"cores": 8}, settings={"model": "b"})
        assert compare(report(1), before)["differences"] == [
            "machine.cores (8, now 2)",
            "settings.model (b, now a)",
        ]

    def test_it_survives_json(self) -> None:
        assert json.loads(json.dumps(report(1))) == report(1)


def test_the_clip_of_the_package_is_there() -> None:
    assert OWN_CLIP.is_file()


def test_what_a_report_says_of_the_machine(checkpoint: Checkpoint, items: list[Item]) -> None:
    clip = Item(str(OWN_CLIP))
    cost = measure_cost(checkpoint.config)
    about = describe(checkpoint, [clip, *items], QUICK, cost)
    assert about["machine"]["cores"] >= 1
    assert about["machine"]["memory"] is None or math.log2(about["machine"]["memory"]) > 28
    assert about["machine"]["processor"]
    assert about["settings"]["videos"] == ["the clip of the package", *(item.path for item in items)]
    assert about["network"] == {"parameters": cost.parameters, "flops_per_view": cost.flops}


def test_neither_torch_nor_transformers_is_imported_before_they_are_needed() -> None:
    code = "import sys, timesformer_cli.jobs.benchmark; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
