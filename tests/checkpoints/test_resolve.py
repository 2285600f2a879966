"""From a name to a recipe, over the files that real model folders hold."""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timesformer_cli import TimesformerConfig, TimesformerForVideoClassification
from timesformer_cli.__about__ import DEFAULT_MODEL
from timesformer_cli.checkpoints import labels, recipes, zoo
from timesformer_cli.checkpoints.folder import save_recipe
from timesformer_cli.checkpoints.recipes import with_overrides
from timesformer_cli.checkpoints.resolve import resolve
from timesformer_cli.errors import CheckpointError, UsageError
from timesformer_cli.specs import Checkpoint, PreprocessSpec, Recipe, SamplingSpec

TINY = TimesformerConfig(
    image_size=16,
    patch_size=8,
    num_frames=2,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=8,
    id2label={0: "jump", 1: "run", 2: "sit"},
)
# What the published checkpoints carry, in the two generations of the file.
FACEBOOK = {
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.45, 0.45, 0.45],
    "image_std": [0.225, 0.225, 0.225],
    "image_processor_type": "VideoMAEImageProcessor",
    "resample": 2,
}
NEWER = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
}
OLDER = {"size": 224, "feature_extractor_type": "VideoMAEFeatureExtractor"}


def write(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def make_folder(folder: Path, processor: dict[str, Any] | None = None, **config: Any) -> str:
    folder.mkdir(exist_ok=True)
    replace(TINY, image_size=224, patch_size=16, **config).save_pretrained(folder)
    (folder / "model.safetensors").touch()
    if processor is not None:
        write(folder, "preprocessor_config.json", processor)
    return str(folder)


def error_of(name: str | Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(str(name))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_that_says_nothing_is_the_original_s(tmp_path: Path) -> None:
    name = make_folder(tmp_path / "model", num_frames=8)
    checkpoint = resolve(name)
    assert checkpoint.name == checkpoint.source == name
    assert checkpoint.labels == ("jump", "run", "sit")
    assert checkpoint.sampling == SamplingSpec(num_frames=8, stride=32, fps=30)
    assert checkpoint.preprocess == PreprocessSpec(size=(224, 224), short_side=256)
    assert checkpoint.combine == "logits"
    assert checkpoint.recipe.name == "original with clips=auto, crops=1"


@pytest.mark.parametrize(
    ("frames", "stride"), [(8, 32), (16, 16), (96, 4), (32, 8), (10, 25.6), (1, 256), (64, 4), (400, 1)]
)
def test_the_window_follows_the_number_of_frames(tmp_path: Path, frames: int, stride: float) -> None:
    sampling = resolve(make_folder(tmp_path, num_frames=frames)).sampling
    assert sampling == SamplingSpec(num_frames=frames, stride=stride)


@pytest.mark.parametrize("generation", [NEWER, OLDER])
def test_the_published_statistics_mean_the_original_pipeline(tmp_path: Path, generation: dict[str, Any]) -> None:
    checkpoint = resolve(make_folder(tmp_path, FACEBOOK | generation))
    assert checkpoint.preprocess == PreprocessSpec(size=(224, 224), short_side=256, resize="float")


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"size": {"shortest_edge": 448}, "crop_size": {"height": 448, "width": 448}}, ((448, 448), 448)),
        ({"size": 448, "crop_size": 448}, ((448, 448), 448)),
        ({"size": {"shortest_edge": 112}, "crop_size": 112}, ((112, 112), 128)),
    ],
)
def test_the_short_side_of_other_sizes(
    tmp_path: Path, processor: dict[str, Any], expected: tuple[tuple[int, int], int]
) -> None:
    preprocess = resolve(make_folder(tmp_path, FACEBOOK | processor)).preprocess
    assert (preprocess.size, preprocess.short_side) == expected


HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def test_other_processors_are_taken_at_their_word(tmp_path: Path) -> None:
    checkpoint = resolve(make_folder(tmp_path, NEWER | HALF, num_frames=8))
    assert checkpoint.preprocess == PreprocessSpec(
        size=(224, 224), short_side=224, mean=(0.5,) * 3, std=(0.5,) * 3, resize="antialias"
    )
    assert checkpoint.sampling == SamplingSpec(num_frames=8)
    assert checkpoint.recipe.name == "preprocessor_config.json"


@pytest.mark.parametrize("processor", [None, FACEBOOK | NEWER])
def test_the_classes_of_a_data_set_bring_its_recipe(tmp_path: Path, processor: dict[str, Any] | None) -> None:
    names = labels.read("something-something-v2")
    checkpoint = resolve(make_folder(tmp_path, processor, num_frames=8, id2label=dict(enumerate(names))))
    assert checkpoint.dataset == "something-something-v2"
    assert checkpoint.recipe == recipes.preset("original", checkpoint.config, dataset="something-something-v2")
    assert (checkpoint.sampling.method, checkpoint.preprocess.channel_order) == ("segments", "bgr")


def test_other_statistics_are_another_model_s_whatever_its_classes(tmp_path: Path) -> None:
    names = labels.read("something-something-v2")
    checkpoint = resolve(make_folder(tmp_path, NEWER | HALF, id2label=dict(enumerate(names))))
    assert (checkpoint.sampling.method, checkpoint.preprocess.channel_order) == ("window", "rgb")


def test_gray_models(tmp_path: Path) -> None:
    assert resolve(make_folder(tmp_path, num_channels=1)).preprocess.channel_order == "gray"


def test_a_recipe_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    sampling = SamplingSpec(num_frames=12, method="segments", clips=1)
    preprocess = PreprocessSpec(
        size=(96, 128), short_side=100, crops=3, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), channel_order="bgr"
    )
    name = make_folder(tmp_path)
    recipe = Recipe(base="ours", sampling=sampling, preprocess=preprocess, combine="probabilities")
    save_recipe(tmp_path, recipe)
    assert resolve(name).recipe == recipe


def test_a_saved_recipe_leaves_a_processor_file(tmp_path: Path) -> None:
    preprocess = PreprocessSpec(size=(64, 48), short_side=72, mean=(0.4,) * 3, std=(0.3,) * 3, resize="antialias")
    name = make_folder(tmp_path)
    save_recipe(tmp_path, Recipe(base="ours", sampling=SamplingSpec(num_frames=2), preprocess=preprocess))
    (tmp_path / "recipe.json").unlink()
    assert resolve(name).preprocess == preprocess


def test_a_recipe_may_state_a_part(tmp_path: Path) -> None:
    name = make_folder(tmp_path, NEWER | HALF, num_frames=8)
    write(tmp_path, "recipe.json", {"sampling": {"stride": 4}})
    checkpoint = resolve(name)
    assert checkpoint.sampling == SamplingSpec(num_frames=8, stride=4)
    assert checkpoint.preprocess.resize == "antialias"
    assert checkpoint.recipe.name == "recipe.json"


@pytest.mark.parametrize("name", ["no-such-model", "", "x" * 5000, "nul\0", "a/b/c", "../models/x"])
def test_unknown_names_say_what_can_be_given(name: str) -> None:
    message = error_of(name)
    assert message.startswith(f"{name}: no model of that name and no such folder or file")
    assert "`model=camera-motion` works without a download" in message


def test_a_slip_of_the_pen_is_understood() -> None:
    assert "is it base-k400?" in error_of("base-k40")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    assert error_of(tmp_path) == f"{tmp_path}: no config.json; is it a model folder?"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", "{", "not valid JSON"),
        ("config.json", b"\xff\xfe", "not valid JSON"),
        ("config.json", "[]", "object was expected, not list"),
        ("config.json", '{"model_type": "videomae"}', "model_type is 'videomae'"),
        ("config.json", '{"num_frames": "8"}', "num_frames"),
        ("config.json", '{"id2label": {"0": "a", "7": "b"}}', "id2label"),
        ("preprocessor_config.json", "not json", "not valid JSON"),
        ("preprocessor_config.json", '{"size": "large"}', "size is 'large'"),
        (
            "recipe.json",
            '{"smapling": {}}',
            "unknown smapling; known are name, base, changes, sampling, preprocess, combine",
        ),
        ("recipe.json", '{"sampling": {"strides": 4}}', "sampling: unknown strides"),
        ("recipe.json", '{"sampling": 8}', "sampling: a JSON object was expected, not int"),
        ("recipe.json", '{"sampling": {"num_frames": 2.5}}', "num_frames is 2.5"),
        ("recipe.json", '{"sampling": {"clips": "auto"}}', "clips is 'auto'"),
        ("recipe.json", '{"sampling": {"method": "random"}}', "method is 'random'"),
        ("recipe.json", '{"preprocess": {"size": 224}}', "size is 224"),
        ("recipe.json", '{"preprocess": {"resize": "bicubic"}}', "resize is 'bicubic'"),
        ("recipe.json", '{"combine": "max"}', "combine is 'max'"),
        ("recipe.json", '{"preprocess": {"size": [8, 8], "short_side": 8}}', "smaller than a patch"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    folder = make_folder(tmp_path)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    message = error_of(folder)
    assert folder in message
    assert says in message


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 500) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
CONFIG_KEYS = sorted(set(TINY.to_dict()) - {"label2id"})
PROCESSOR_KEYS = sorted({**FACEBOOK, **NEWER})
RECIPE_KEYS = sorted({**asdict(SamplingSpec(num_frames=1)), **asdict(PreprocessSpec(size=(8, 8), short_side=8))})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    st.dictionaries(st.sampled_from(CONFIG_KEYS), JSON_VALUES, max_size=1),
    st.dictionaries(st.sampled_from(PROCESSOR_KEYS), JSON_VALUES, max_size=2),
    st.none()
    | st.dictionaries(st.sampled_from(["sampling", "preprocess", "combine", "activation"]), JSON_VALUES, max_size=1),
    st.dictionaries(st.sampled_from(RECIPE_KEYS), JSON_VALUES, max_size=1),
)
def test_any_json_is_a_checkpoint_or_one_error(
    tmp_path: Path,
    config: dict[str, Any],
    processor: dict[str, Any],
    recipe: dict[str, Any] | None,
    part: dict[str, Any],
) -> None:
    (tmp_path / "model.safetensors").touch()
    write(tmp_path, "config.json", TINY.to_dict() | config)
    write(tmp_path, "preprocessor_config.json", processor)
    keys = asdict(SamplingSpec(num_frames=1))
    for name in part:
        recipe = {"sampling" if name in keys else "preprocess": part}
    if recipe is None:
        (tmp_path / "recipe.json").unlink(missing_ok=True)
    else:
        write(tmp_path, "recipe.json", recipe)
    with suppress(CheckpointError):  # any other exception fails the test
        assert isinstance(resolve(str(tmp_path)), Checkpoint)


def base(tmp_path: Path, **recipe: Any) -> Checkpoint:
    name = make_folder(tmp_path, num_frames=8)
    write(tmp_path, "recipe.json", recipe)
    return resolve(name)


def test_overrides_take_the_place_of_the_recipe(tmp_path: Path) -> None:
    checkpoint = base(tmp_path, sampling={"clips": 2})
    assert with_overrides(checkpoint) == checkpoint
    fields = {"num_frames": 4, "stride": 2, "fps": 15, "clips": 3, "placement": "middle", "combine": "raw_logits"}
    changed = with_overrides(checkpoint, fields=fields)
    assert changed.sampling == SamplingSpec(num_frames=4, stride=2, fps=15, clips=3, placement="middle")
    assert changed.combine == "raw_logits"
    assert changed.recipe.name == (
        "recipe.json with num_frames=4, stride=2, fps=15, clips=3, placement=middle, combine=raw_logits"
    )
    again = with_overrides(changed, fields={"clips": "auto", "stride": 2})
    assert again.sampling.clips is None
    assert again.recipe.name == changed.recipe.name.replace("clips=3", "clips=auto")


def test_one_number_stands_for_all(tmp_path: Path) -> None:
    changed = with_overrides(base(tmp_path), fields={"mean": 0.5, "std": [0.1, 0.2, 0.3], "size": 192})
    assert changed.preprocess == PreprocessSpec(size=(192, 192), short_side=219, mean=(0.5,) * 3, std=(0.1, 0.2, 0.3))


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_presets(tmp_path: Path, name: recipes.RecipeName) -> None:
    checkpoint = base(tmp_path, sampling={"stride": 4})
    changed = with_overrides(checkpoint, recipe=name, fields={"clips": 1})
    assert changed.recipe == recipes.preset(name, checkpoint.config, stride=4)
    assert changed.recipe.name == name


MULTI = {"problem_type": "multi_label_classification"}


@pytest.mark.parametrize("processor", [None, FACEBOOK | NEWER, NEWER | HALF])
@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({}, "softmax"),
        (MULTI, "sigmoid"),
        ({"problem_type": "regression"}, "none"),
        ({"id2label": {0: "a"}}, "sigmoid"),
    ],
)
def test_the_config_decides_on_the_activation(
    tmp_path: Path, processor: dict[str, Any] | None, config: dict[str, Any], activation: str
) -> None:
    checkpoint = resolve(make_folder(tmp_path, processor, **config))
    assert checkpoint.activation == activation
    for name in recipes.RECIPES:  # none of which is about the head
        assert with_overrides(checkpoint, recipe=name).activation == activation


def test_a_recipe_file_decides_on_the_activation_before_the_config(tmp_path: Path) -> None:
    name = make_folder(tmp_path, **MULTI)
    write(tmp_path, "recipe.json", {"sampling": {"stride": 4}})  # of a version that did not know activations
    assert resolve(name).activation == "sigmoid"
    write(tmp_path, "recipe.json", {"activation": "softmax"})
    assert resolve(name).activation == "softmax"
    assert with_overrides(resolve(name), recipe="paper").activation == "softmax"


def test_the_activation_can_be_set(tmp_path: Path) -> None:
    checkpoint = resolve(make_folder(tmp_path, **MULTI))
    changed = with_overrides(checkpoint, fields={"activation": None})  # as `none` arrives from the command line
    assert (changed.activation, changed.recipe.raw) == ("none", True)
    assert changed.recipe.name == "original with clips=auto, crops=1, activation=none"
    save_recipe(tmp_path, changed.recipe)
    assert resolve(str(tmp_path)).recipe == changed.recipe
    with pytest.raises(UsageError, match="activation is 'tanh'; known are softmax, sigmoid, none"):
        with_overrides(checkpoint, fields={"activation": "tanh"})


@pytest.mark.parametrize(("name", "method"), [("transformers", "uniform"), ("transformers-4", "window")])
def test_the_presets_of_transformers_are_what_the_model_s_processor_says(
    tmp_path: Path, name: recipes.RecipeName, method: str
) -> None:
    checkpoint = resolve(make_folder(tmp_path, FACEBOOK | NEWER | {"resample": 3}, num_frames=8))
    assert checkpoint.preprocess.resize == "float"
    changed = with_overrides(checkpoint, recipe=name)
    assert (changed.preprocess.resize, changed.preprocess.interpolation) == ("antialias", "bicubic")
    assert changed.sampling.method == method


@pytest.mark.parametrize(
    ("preprocess", "crops", "short_side"),
    [
        ({}, 3, 224),
        ({}, 1, 256),
        ({"crops": 3, "short_side": 224}, 1, 256),
        ({"crops": 1, "short_side": 240}, 1, 240),  # the recipe's own number of crops changes nothing
        ({"resize": "antialias"}, 3, 224),
        ({"resize": "antialias", "crops": 3, "short_side": 224}, 1, 224),
        ({"size": [448, 448], "crops": 3, "short_side": 448}, 1, 448),
    ],
)
def test_crops_bring_their_short_side(tmp_path: Path, preprocess: dict[str, Any], crops: Any, short_side: int) -> None:
    checkpoint = with_overrides(base(tmp_path, preprocess=preprocess), fields={"crops": crops})
    assert (checkpoint.preprocess.crops, checkpoint.preprocess.short_side) == (crops, short_side)


def test_one_crop_of_something_something_is_scaled_to_the_crop(tmp_path: Path) -> None:
    names = labels.read("something-something-v2")
    checkpoint = resolve(make_folder(tmp_path, num_frames=8, id2label=dict(enumerate(names))))
    assert with_overrides(checkpoint, fields={"crops": 1}).preprocess.short_side == 224


@pytest.mark.parametrize(
    ("recipe", "options", "says"),
    [
        ({"sampling": {"method": "segments"}}, {"stride": 4}, "`stride` does not apply"),
        ({"sampling": {"method": "uniform"}}, {"placement": "middle"}, "`placement` does not apply"),
        ({"sampling": {"method": "uniform"}}, {"clips": 3}, "whole video"),
        ({"preprocess": {"stretch": [224, 224]}}, {"crops": 3}, "stretched"),
        ({}, {"num_frames": 0}, "num_frames is 0"),
        ({}, {"stride": float("nan")}, "stride is nan"),
        ({}, {"color": "red"}, "unknown color; known are num_frames, .*combine"),
        ({}, {"mean": "dark"}, "mean is"),
        ({}, {"size": 8}, "smaller than a patch"),
        ({}, {"channel_order": "gray"}, "mean is"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, recipe: dict[str, Any], options: dict[str, Any], says: str) -> None:
    checkpoint = base(tmp_path, **recipe)
    with pytest.raises(UsageError, match=says):
        with_overrides(checkpoint, fields=options)


ODD = NEWER | {"image_processor_type": "FancyImageProcessor"}


def test_an_unknown_image_processor_is_no_matter_if_a_recipe_is_named(tmp_path: Path) -> None:
    name = make_folder(tmp_path, ODD, num_frames=8)
    message = error_of(name)
    assert "image_processor_type is 'FancyImageProcessor'" in message
    assert message.endswith("; a preset can replace it: `recipe=NAME`")
    told: list[str] = []
    checkpoint = with_overrides(resolve(name, recipe="original", tell=told.append), recipe="original")
    assert checkpoint.recipe == recipes.preset("original", checkpoint.config)
    (note,) = told
    assert note.startswith(f"{tmp_path}/preprocessor_config.json: image_processor_type is 'FancyImageProcessor'")
    assert note.endswith("; not used, as the recipe original was named")


@pytest.mark.parametrize("name", ["camera-motion/", "camera-motion//"])
def test_slashes_at_the_end_of_a_name(name: str) -> None:
    assert resolve(name, offline=True).name == "camera-motion"


def test_folders_of_a_training_run_are_named(tmp_path: Path) -> None:
    for step in (500, 1000, 90, 1500):
        make_folder(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-9999").touch()  # no folder
    (tmp_path / "checkpoint-best").mkdir()
    assert error_of(tmp_path) == (
        f"{tmp_path}: a folder of a training run, which holds only checkpoints of it (checkpoint-90, checkpoint-500, "
        f"checkpoint-1000 ... checkpoint-1500); name one of them, such as the last: {tmp_path}/checkpoint-1500"
    )
    assert resolve(str(tmp_path / "checkpoint-1500")).labels == ("jump", "run", "sit")
    (tmp_path / "config.json").write_bytes((tmp_path / "checkpoint-90" / "config.json").read_bytes())
    assert "which holds only checkpoints of it" in error_of(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert resolve(str(tmp_path)).labels == ("jump", "run", "sit")


@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter_is_named(tmp_path: Path, with_config: bool) -> None:
    if with_config:
        make_folder(tmp_path)
        (tmp_path / "model.safetensors").unlink()
    write(tmp_path, "adapter_config.json", {"base_model_name_or_path": "facebook/timesformer", "peft_type": "LORA"})
    (tmp_path / "adapter_model.safetensors").touch()
    assert error_of(tmp_path) == (
        f"{tmp_path}: only an adapter of facebook/timesformer, made with PEFT, not a whole model; merge it into its "
        "base model with `merge_and_unload()` of PEFT, save the result with `save_pretrained()`, and name that folder"
    )
    write(tmp_path, "adapter_config.json", {"base_model_name_or_path": None})
    assert error_of(tmp_path).startswith(f"{tmp_path}: only an adapter, made with PEFT")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    (Path(make_folder(tmp_path)) / "model.safetensors").unlink()
    assert "no weights; one of model.safetensors" in error_of(tmp_path)


def test_the_bundled_model() -> None:
    checkpoint = resolve("camera-motion")
    assert (checkpoint.name, checkpoint.recipe.name) == ("camera-motion", "camera-motion")
    model = TimesformerForVideoClassification.from_pretrained("camera-motion")
    assert tuple(model.config.id2label.values()) == checkpoint.labels


def test_the_default_is_in_the_zoo() -> None:
    assert DEFAULT_MODEL in zoo.ZOO


def test_resolving_does_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from timesformer_cli.checkpoints.resolve import resolve; resolve(sys.argv[1]); "
        "import timesformer_cli.video.sampling, timesformer_cli.video.preprocess, timesformer_cli.pipeline.aggregate; "
        "assert not {'torch', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, make_folder(tmp_path)], check=True)
