"""Models as the command line takes them: every form of --model, and `timesformer models`."""

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from testing.clips import LABELS, write_model, write_video
from testing.command import Run, only_line, scores
from testing.hub_server import Hub, serve
from testing.layouts import save_mmaction2, save_pyth
from timesformer_cli import TimesformerForVideoClassification
from timesformer_cli.checkpoints import labels, zoo
from timesformer_cli.checkpoints.resolve import resolve

BASE_SSV2 = "facebook/timesformer-base-finetuned-ssv2"
PROCESSOR = {
    "image_processor_type": "VideoMAEImageProcessor",
    "size": {"shortest_edge": 32},
    "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video, and the same tiny network in every layout: a folder, shards, .bin, .pyth, .pth."""
    folder = tmp_path_factory.mktemp("models")
    write_video(folder / "a.mp4", frames=40)
    write_model(folder / "tiny")
    (folder / "tiny" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    state = load_file(folder / "tiny" / "model.safetensors")
    shutil.copytree(folder / "tiny", folder / "bin")
    (folder / "bin" / "model.safetensors").unlink()
    torch.save(state, folder / "bin" / "pytorch_model.bin")
    save_pyth(folder / "tiny.pyth", state, cfg="TIMESFORMER: {NUM_HEADS: 2}")
    save_mmaction2(folder / "tiny.pth", state)
    (folder / "labels.json").write_text(json.dumps(LABELS), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def here(material: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(material)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve() as server:
        server.connect(monkeypatch, tmp_path / "cache")
        yield server


def ssv2_files(folder: Path) -> dict[str, bytes]:
    """A tiny network in place of the published one, with its 174 classes in a wrong order."""
    config = TimesformerForVideoClassification.from_pretrained("tiny").config
    names = reversed(labels.read("something-something-v2"))
    torch.manual_seed(1)
    TimesformerForVideoClassification(replace(config, id2label=dict(enumerate(names)))).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestForms:
    """The same network, whatever --model says, gives the same scores when it is fed the same."""

    @pytest.mark.parametrize(
        "args",
        [
            ("bin",),
            ("bin/pytorch_model.bin",),
            ("tiny/model.safetensors",),
            ("tiny.pyth", "--labels", "labels.json"),
            ("tiny.pth", "--config", "tiny/config.json"),
        ],
    )
    def test_on_disk(self, run: Run, args: tuple[str, ...]) -> None:
        expected = scores(run, "-m", "tiny", "--recipe", "original")
        np.testing.assert_allclose(scores(run, "-m", *args, "--recipe", "original"), expected, rtol=2e-5)
        # Another way of feeding it shows that the comparison would notice.
        assert not np.allclose(scores(run, "-m", *args, "--recipe", "uniform"), expected, rtol=1e-2)

    def test_on_the_hub(self, run: Run, hub: Hub) -> None:
        hub.add_repo("someone/tiny", Path("tiny"))
        other = hub.add_repo("someone/tiny", {"config.json": b"{}"}, branch="broken")
        expected = scores(run, "-m", "tiny")
        assert scores(run, "-m", "someone/tiny") == expected
        hub.close()
        assert scores(run, "-m", "someone/tiny") == expected
        code, out, err = run("predict", "a.mp4", "-m", "someone/tiny", "--revision", other, "--offline")
        assert (code, out) == (1, "")
        assert "config.json of someone/tiny" in only_line(err)

    def test_an_address_on_the_hub(self, run: Run, hub: Hub) -> None:
        hub.add_repo("someone/tiny", {"config.json": b"{}"})
        hub.add_repo("someone/tiny", Path("tiny"), branch="v2")
        expected = scores(run, "-m", "tiny")
        for name in (f"{hub.url}/someone/tiny/tree/v2", f"{hub.url}/someone/tiny/blob/v2/config.json"):
            assert scores(run, "-m", name) == expected
        assert run("predict", "a.mp4", "-m", f"{hub.url}/someone/tiny/tree/v2").records[0]["model"] == "someone/tiny"
        assert scores(run, "-m", "someone/tiny/", "--revision", "v2") == expected
        assert run("models", "show", f"{hub.url}/someone/tiny/tree/v2/").code == 0
        code, _, err = run("predict", "a.mp4", "-m", f"{hub.url}/someone/tiny/tree/v2", "--revision", "main")
        assert (code, only_line(err)) == (2, "error: --revision main: the address says v2; leave one of them out")

    def test_a_slash_at_the_end(self, run: Run) -> None:
        assert run("models", "show", "camera-motion/").code == 0
        assert run("predict", "a.mp4", "-m", "tiny.pyth/", "--labels", "labels.json").code == 0
        assert run("predict", "a.mp4", "-m", "tiny/").code == 0

    def test_what_a_weight_file_holds_besides_is_told(self, run: Run, tmp_path: Path) -> None:
        """A module of Lightning with a loss."""
        state = {f"model.{name}": tensor for name, tensor in load_file("tiny/model.safetensors").items()}
        torch.save({"state_dict": state | {"loss.weight": torch.ones(5)}}, tmp_path / "last.ckpt")
        args = ["--labels", "labels.json", "--config", "tiny/config.json", "--recipe", "original"]
        code, out, err = run("predict", "a.mp4", "-m", tmp_path / "last.ckpt", *args)
        assert (code, only_line(err)) == (0, f"{tmp_path}/last.ckpt: left out loss.weight, not part of the network")
        (expected,) = run("predict", "a.mp4", "-m", "tiny", "--recipe", "original").records
        assert json.loads(out)["predictions"] == expected["predictions"]

    def test_a_recipe_by_name_replaces_an_image_processor_that_nobody_knows(self, run: Run, tmp_path: Path) -> None:
        folder = shutil.copytree("tiny", tmp_path / "model")
        (folder / "recipe.json").unlink(missing_ok=True)
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "Fancy"}))
        code, out, err = run("predict", "a.mp4", "-m", folder)
        assert (code, out) == (1, "")
        assert only_line(err).endswith("; a preset can replace it: --recipe NAME")
        for command in (("predict", "a.mp4", "-m", folder), ("models", "show", folder)):
            code, out, err = run(*command, "--recipe", "original")
            assert code == 0
            assert only_line(err).endswith("; not used, as the recipe original was named")

    def test_a_short_name_is_the_published_repository_fed_as_published(
        self, run: Run, hub: Hub, tmp_path: Path
    ) -> None:
        hub.add_repo(BASE_SSV2, ssv2_files(tmp_path / "ssv2"))
        code, out, err = run("predict", "a.mp4", "-m", "base-ssv2", "-k", "1000")
        assert (code, err) == (0, "")
        record = json.loads(out)
        assert (record["model"], record["recipe"]) == ("base-ssv2", "original")
        assert [view["crop"] for view in record["views"]] == ["left", "center", "right"]
        # The names are those of the data set, not those of config.json, which were wrong once.
        names = {p["index"]: p["label"] for p in record["predictions"]}
        assert names == dict(enumerate(labels.read("something-something-v2")))
        assert resolve(BASE_SSV2).recipe == resolve("base-ssv2").recipe
        assert resolve("base-ssv2").preprocess.channel_order == "bgr"

    def test_a_name_without_weights_on_the_hub_takes_a_file(self, run: Run, tmp_path: Path) -> None:
        _, out, err = run("predict", "a.mp4", "-m", "howto100m-8")
        assert out == ""
        assert only_line(err).startswith(
            "error: howto100m-8: not on the Hub; TimeSformer_divST_8x32_224_HowTo100M.pyth"
        )
        assert "--weights FILE" in err
        code, out, err = run("predict", "a.mp4", "-m", "howto100m-8", "--weights", "tiny.pyth")
        assert (code, out) == (1, "")
        assert "do not fit" in only_line(err)

    @pytest.mark.parametrize(
        ("cfg", "method", "stride"),
        [("TRAIN: {DATASET: ssv2}", "segments", 64), ("DATA: {SAMPLING_RATE: 2}", "window", 2), ("", "window", 64)],
    )
    def test_a_file_is_fed_by_the_settings_in_it(
        self, run: Run, tmp_path: Path, cfg: str, method: str, stride: float
    ) -> None:
        """Something-Something's reader stays that of a model that was fine-tuned to other classes with it."""
        state = load_file("tiny/model.safetensors")
        path = save_pyth(tmp_path / "x.pyth", state, cfg=f"{cfg}\nTIMESFORMER: {{NUM_HEADS: 2}}")
        checkpoint = resolve(str(path))
        assert (checkpoint.sampling.method, checkpoint.sampling.stride) == (method, stride)
        assert checkpoint.preprocess.channel_order == ("bgr" if method == "segments" else "rgb")
        assert checkpoint.labels[0] == "LABEL_0"


class Payload:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


class TestRefusals:
    def test_code_in_a_pickle_is_never_run(self, run: Run, tmp_path: Path) -> None:
        state = load_file("tiny/model.safetensors")
        torch.save({"model_state": state, "cfg": Payload(tmp_path / "ran")}, tmp_path / "evil.pyth")
        code, out, err = run("predict", "a.mp4", "-m", tmp_path / "evil.pyth")
        assert (code, out) == (1, "")
        assert "refused" in only_line(err)
        assert not (tmp_path / "ran").exists()
        pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))  # it would have
        assert (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        ("args", "code", "part"),
        [
            (("-m", "tiny.pyth", "--labels", "tiny/config.json", "--recipe", "best"), 2, "'best' is not one of"),
            (("-m", "tiny", "--set", "mean"), 2, "'mean' is not of the form FIELD=VALUE"),
            (("-m", "tiny", "--set", "speed=9"), 2, "unknown speed; known are num_frames"),
            (("-m", "tiny", "--set", "resize=cubic"), 2, "resize is 'cubic'"),
            (("-m", "tiny", "--revision", "v2"), 2, "--revision is for models on the Hub"),
            (("-m", "tiny", "--weights", "tiny.pyth"), 2, "--weights goes with a short name"),
            (("-m", "camera-motion", "--labels", "labels.json"), 1, "labels.json: 5 labels for a model with 9 classes"),
            (("-m", "tiny", "--labels", "nowhere.txt"), 1, "nowhere.txt"),
            (("-m", "tiny.pth"), 1, "a config.json with num_attention_heads is needed"),
            (("-m", "tiny", "--config", "other.json"), 1, "the weights do not fit"),
            (("-m", "tiny", "--config", "a.mp4"), 1, "a.mp4: not valid JSON"),
            (("-m", "base-k400", "--weights", "tiny.pyth"), 1, "the weights do not fit"),
            (("-m", "base-k400", "--weights", "nowhere.pyth"), 1, "nowhere.pyth"),
        ],
    )
    def test_one_line_each(self, run: Run, args: tuple[str, ...], code: int, part: str) -> None:
        other = json.loads(Path("tiny/config.json").read_text())
        Path("other.json").write_text(json.dumps(other | {"hidden_size": 32}))
        outcome = run("predict", "a.mp4", *args)
        assert (outcome.code, outcome.out) == (code, "")
        assert part in only_line(outcome.err)

    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
    def test_damaged_weights(self, run: Run, tmp_path: Path, name: str) -> None:
        folder = shutil.copytree("tiny" if name.startswith("model") else "bin", tmp_path / "model")
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        code, out, err = run("predict", "a.mp4", "-m", folder)
        assert (code, out) == (1, "")
        assert str(folder / name) in only_line(err)

    def test_a_repository_or_revision_that_does_not_exist(self, run: Run, hub: Hub) -> None:
        hub.add_repo("someone/tiny", Path("tiny"))
        for args in (("-m", "someone/else"), ("-m", "someone/tiny", "--revision", "v9")):
            code, out, err = run("predict", "a.mp4", *args)
            assert (code, out) == (1, "")
            assert "--model camera-motion works without a download" in only_line(err)

    def test_a_name_that_is_neither_here_nor_on_the_hub(self, run: Run, hub: Hub) -> None:
        code, _, err = run("predict", "a.mp4", "-m", "runs/best")
        assert code == 1
        assert only_line(err).startswith(
            "error: runs/best: no folder or file of that name here, and config.json of runs/best cannot be had from "
        )
        assert "no such repository, or a private one" in err
        _, _, err = run("predict", "a.mp4", "-m", "runs/best", "--offline")
        assert "runs/best: no folder or file of that name here, and config.json of runs/best is not in the cache" in err

    def test_timelines_are_for_later(self, run: Run, tmp_path: Path) -> None:
        folder = shutil.copytree("tiny", tmp_path / "model")
        (folder / "recipe.json").write_text(json.dumps({"sampling": {"window": 8.5}}))
        code, out, err = run("predict", "a.mp4", "-m", folder)
        assert (code, out) == (1, "")
        assert "timeline" in only_line(err)

    def test_classes_without_names_are_told(self, run: Run, tmp_path: Path) -> None:
        save_pyth(tmp_path / "x.pyth", load_file("tiny/model.safetensors"), cfg="TIMESFORMER: {NUM_HEADS: 2}")
        code, out, err = run("predict", "a.mp4", "-m", tmp_path / "x.pyth", "-k", "1")
        assert code == 0
        assert json.loads(out)["predictions"][0]["label"].startswith("LABEL_")
        assert "--labels FILE" in only_line(err)


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    code, out, err = run("models")
    assert code == 2
    assert "convert" in out + err
    assert "error" not in err


class TestList:
    def test_every_published_checkpoint_has_a_line(self, run: Run) -> None:
        code, out, err = run("models", "list")
        assert (code, err) == (0, "")
        assert [line.split()[0] for line in out.splitlines()[1 : len(zoo.ZOO) + 1]] == list(zoo.ZOO)
        assert "77.9" in out
        assert "CC-BY-NC-4.0" in out
        assert max(map(len, out.splitlines())) <= 120

    def test_what_is_here_is_told(self, run: Run, hub: Hub, tmp_path: Path) -> None:
        def cached() -> dict[str, int | None]:
            entries = json.loads(run("models", "list", "--json").out)
            return {entry["name"]: entry["bytes"] for entry in entries if entry["cached"]}

        assert cached() == {}
        files = ssv2_files(tmp_path / "ssv2")
        hub.add_repo(BASE_SSV2, files)
        assert run("models", "download", "base-ssv2").code == 0
        assert cached() == {"base-ssv2": sum(map(len, files.values()))}


class TestShow:
    @pytest.mark.parametrize("name", [*zoo.ZOO, "tiny", "tiny.pyth", "bin/pytorch_model.bin"])
    def test_all_there_is_to_know_without_a_download(self, run: Run, hub: Hub, name: str) -> None:
        code, out, err = run("models", "show", name)
        assert (code, err) == (0, "")
        for part in ("parameters", "multiply-adds", "labels", "recipe", "channel_order", "mmaction2"):
            assert part in out
        assert hub.log == []

    def test_numbers(self, run: Run, hub: Hub) -> None:
        card = json.loads(run("models", "show", "hr-k400", "--json").out)
        assert card["parameters"] == card["published"]["parameters"] == 122_024_080
        assert card["multiply_adds_per_view"] / 1e12 == pytest.approx(1.70, rel=0.01)
        assert card["labels"] == list(labels.read("kinetics-400"))
        assert (card["weights"], card["config"]["image_size"]) == (None, 448)

    def test_a_recipe_can_be_tried_out(self, run: Run) -> None:
        _, out, _ = run("models", "show", "tiny", "--recipe", "paper", "--set", "fps=none", "--set", "mean=0.1,0.2,0.3")
        assert "paper with fps=none, mean=0.1,0.2,0.3" in out
        assert ["placement", "middle"] in [line.split() for line in out.splitlines()]

    def test_what_is_not_here_cannot_be_shown(self, run: Run, hub: Hub) -> None:
        code, out, err = run("models", "show", "someone/else")
        assert (code, out, hub.log) == (1, "", [])
        assert "someone/else: no folder or file of that name here, and not in the cache of the Hub" in only_line(err)
        assert "timesformer models download someone/else" in err


class TestDownload:
    def test_prints_the_folder_and_fetches_once(self, run: Run, hub: Hub) -> None:
        hub.add_repo("someone/tiny", Path("tiny"))
        code, out, err = run("models", "download", "someone/tiny", "camera-motion")
        assert (code, err) == (0, "")
        first, second = map(Path, out.splitlines())
        assert (first / "config.json").read_bytes() == Path("tiny/config.json").read_bytes()
        assert second == zoo.ZOO["camera-motion"].folder
        files = hub.files()
        assert run("models", "download", "someone/tiny").out == f"{first}\n"
        assert hub.files() == files

    @pytest.mark.parametrize("name", ["howto100m-8", "no-such-model", "someone/else"])
    def test_what_cannot_be_had(self, run: Run, hub: Hub, name: str) -> None:
        code, out, err = run("models", "download", name)
        assert (code, out) == (1, "")
        assert name in only_line(err)


def assert_same_model(first: str | Path, second: str | Path) -> None:
    one, two = resolve(str(first)), resolve(str(second))
    assert (one.config.to_dict(), one.recipe, one.labels) == (two.config.to_dict(), two.recipe, two.labels)
    networks = [TimesformerForVideoClassification.from_pretrained(name, dtype=None) for name in (first, second)]
    states = [network.state_dict() for network in networks]
    assert list(states[0]) == list(states[1])
    for name, tensor in states[0].items():
        assert states[1][name].dtype == tensor.dtype
        assert torch.equal(states[1][name], tensor), name


class TestConvert:
    @pytest.mark.parametrize("source", ["bin", "tiny", "camera-motion"])
    def test_there_and_back_nothing_is_lost(self, run: Run, tmp_path: Path, source: str) -> None:
        assert run("models", "convert", source, tmp_path / "m.pyth") == (0, f"{tmp_path / 'm.pyth'}\n", "")
        assert run("models", "convert", tmp_path / "m.pyth", tmp_path / "m") == (0, f"{tmp_path / 'm'}\n", "")
        assert_same_model(source, tmp_path / "m.pyth")
        assert_same_model(source, tmp_path / "m")

    def test_the_recipe_goes_along(self, run: Run, tmp_path: Path) -> None:
        assert run("models", "convert", "tiny", tmp_path / "m", "--recipe", "paper", "--set", "stride=2").code == 0
        recipe = resolve(str(tmp_path / "m")).recipe
        assert (recipe.name, recipe.sampling.stride, recipe.combine) == ("paper with stride=2", 2, "probabilities")

    @pytest.mark.parametrize(
        ("target", "code", "says"),
        [
            ("there", 1, "already exists; choose another name, or --overwrite"),
            ("there.pyth", 1, "already exists"),
            ("nowhere/m", 1, "the folder nowhere does not exist"),
            ("m.bin", 2, "give a folder, or a name that ends in .pyth"),
        ],
    )
    def test_targets_that_will_not_do(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, code: int, says: str
    ) -> None:
        tiny = Path("tiny").resolve()
        monkeypatch.chdir(tmp_path)
        Path("there/old").mkdir(parents=True)
        Path("there.pyth").write_text("mine")
        outcome = run("models", "convert", tiny, target)
        assert (outcome.code, outcome.out) == (code, "")
        assert says in only_line(outcome.err)
        assert Path("there.pyth").read_text() == "mine"

    def test_an_empty_folder_will_do(self, run: Run, tmp_path: Path) -> None:
        assert run("models", "convert", "tiny", tmp_path).code == 0
        assert_same_model("tiny", tmp_path)

    def test_a_target_is_replaced_when_asked(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "m.pyth").write_text("old")
        assert run("models", "convert", "tiny", tmp_path / "m.pyth", "--overwrite").code == 0
        assert_same_model("tiny", tmp_path / "m.pyth")
        assert run("models", "convert", tmp_path / "m.pyth", tmp_path / "m.pyth", "--overwrite").code == 0
        assert_same_model("tiny", tmp_path / "m.pyth")
