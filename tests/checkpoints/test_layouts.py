"""Layouts of published weights: names, what they compute, what they tell of the config, and files both ways."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from testing.layouts import Mmaction2, Original, mmaction2_state, original_state, save_mmaction2, save_pyth
from testing.reference import relative_difference
from timesformer_cli.checkpoints import labels
from timesformer_cli.checkpoints.layouts import layout_of, to_hub, to_original
from timesformer_cli.checkpoints.pyth import TrainingFacts, facts_of, infer_config, read_cfg, write_pyth
from timesformer_cli.checkpoints.weights import Stored, check_state_dict, read_state_dict, read_stored
from timesformer_cli.errors import CheckpointError
from timesformer_cli.network.model import TimesformerForVideoClassification, TimesformerModel
from timesformer_cli.specs import PreprocessSpec, Recipe, SamplingSpec, TimesformerConfig

ATTENTION = ["divided_space_time", "joint_space_time", "space_only"]
LAYOUTS = ["original", "mmaction2"]

CONFIG = TimesformerConfig(
    image_size=24,
    patch_size=8,
    num_frames=5,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    num_labels=3,
)
RECIPE = Recipe(
    base="original",
    sampling=SamplingSpec(num_frames=5, stride=7.5, fps=None, placement="middle", overrun="loop", clips=2),
    preprocess=PreprocessSpec(size=(24, 24), short_side=27, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1)),
    combine="probabilities",
)


def network(config: TimesformerConfig, seed: int = 0) -> TimesformerForVideoClassification:
    """Every weight tells in the logits: none is zero or one."""
    torch.manual_seed(seed)
    return shaken(TimesformerForVideoClassification(config)).double()


def shaken(module: Any) -> Any:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            scale = 0.5 if parameter.ndim < 2 or "embed" in name else 1.5 / parameter[0].numel() ** 0.5
            parameter.copy_(torch.randn_like(parameter) * scale + (parameter.ndim == 1 and "norm" in name))
    return module.eval()


def in_layout(layout: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the Hub as `read_state_dict` gives it from a file of the layout."""
    if layout == "mmaction2":
        return mmaction2_state(state)
    if layout == "hub":
        return dict(state)
    return {name.removeprefix("model."): tensor for name, tensor in original_state(state).items()}


def assert_same(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Names, dtypes and every bit."""
    assert sorted(actual) == sorted(expected)
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name


def stored(state: Mapping[str, Tensor] | None = None, **extras: Any) -> Stored:
    return Stored(Path("some.pyth"), dict(state or {}), extras)


class TestNames:
    @pytest.mark.parametrize("attention", ATTENTION)
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_to_the_hub_renames_and_copies_nothing(self, layout: str, attention: Any) -> None:
        # Twelve layers, so that one number is the beginning of another.
        state = network(replace(CONFIG, attention_type=attention, num_hidden_layers=12)).state_dict()
        theirs = in_layout(layout, state)
        assert layout_of(theirs) == layout
        assert not set(theirs) & set(state)
        ours = to_hub(theirs)
        assert_same(ours, state)
        assert {name: t.data_ptr() for name, t in ours.items()} == {name: t.data_ptr() for name, t in state.items()}

    @pytest.mark.parametrize("attention", ATTENTION)
    @pytest.mark.parametrize(("layout", "theirs"), [("original", Original), ("mmaction2", Mmaction2)])
    def test_names_are_those_that_their_parts_give(self, layout: str, theirs: Any, attention: Any) -> None:
        config = replace(CONFIG, attention_type=attention)
        assert sorted(in_layout(layout, network(config).state_dict())) == sorted(theirs(config).state_dict())

    @pytest.mark.parametrize("attention", ATTENTION)
    def test_there_and_back(self, attention: Any) -> None:
        state = network(replace(CONFIG, attention_type=attention)).state_dict()
        assert_same(to_original(state), in_layout("original", state))
        assert_same(to_hub(to_original(state)), state)

    def test_names_of_the_hub_stay(self) -> None:
        whole = network(CONFIG)
        for state in (whole.state_dict(), whole.timesformer.state_dict()):
            assert layout_of(state) == "hub"
            assert_same(to_hub(state), state)

    def test_encoders_alone(self) -> None:
        whole = network(CONFIG)
        encoder = whole.timesformer.state_dict()
        headless = {name: t for name, t in whole.state_dict().items() if not name.startswith("classifier")}
        for layout in LAYOUTS:
            assert_same(to_hub(in_layout(layout, headless)), headless)
        assert_same(to_original(encoder), in_layout("original", headless))
        backbone = {name.removeprefix("backbone."): t for name, t in mmaction2_state(headless).items()}
        assert layout_of(backbone) == "mmaction2"
        assert_same(to_hub(backbone), headless)

    def test_without_query_key_and_value_biases(self) -> None:
        state = network(replace(CONFIG, qkv_bias=False)).state_dict()
        assert_same(to_hub(in_layout("original", state)), state)

    @pytest.mark.parametrize("layout", ["hub", *LAYOUTS])
    def test_unknown_names_stay_to_be_named(self, layout: str) -> None:
        state = in_layout(layout, network(CONFIG).state_dict())
        odd = {
            name: torch.zeros(1)
            for name in (
                "blocks.0.gamma",
                "blocks.x.norm1.scale",
                "backbone.layers.7",
                "head",
                "head_dist.weight",
                "norm1.weight",
            )
        }
        converted = to_hub({**state, **odd})
        assert {name: converted[name] for name in odd} == odd
        assert len(converted) == len(state) + len(odd)
        with pytest.raises(CheckpointError, match=r"6 unexpected: blocks\.0\.gamma, blocks\.x\.norm1\.scale"):
            check_state_dict(converted, network(CONFIG).state_dict(), "here")

    def test_pixel_statistics_among_the_weights_of_mmaction2(self) -> None:
        state = network(CONFIG).state_dict()
        pixels = {f"data_preprocessor.{name}": torch.full((3, 1, 1, 1), 127.5) for name in ("mean", "std")}
        assert_same(to_hub({**pixels, **mmaction2_state(state)}), state)

    @pytest.mark.parametrize("names", [[], ["fc.weight"], ["norm.weight", "head.weight"], ["model.blocks.0"]])
    def test_nobodys_names(self, names: list[str]) -> None:
        state = {name: torch.zeros(1) for name in names}
        assert layout_of(names) == "hub"
        assert to_hub(state) == state


class TestLogits:
    """Their networks against ours with converted weights, in float64."""

    @pytest.fixture
    def videos(self) -> Tensor:
        return torch.randn(2, 5, 3, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    @pytest.mark.parametrize("attention", ATTENTION)
    @pytest.mark.parametrize("theirs", [Original, Mmaction2])
    @torch.no_grad()
    def test_equal_and_every_tensor_tells(self, theirs: Any, attention: Any, videos: Tensor) -> None:
        config = replace(CONFIG, attention_type=attention)
        torch.manual_seed(1)
        source = shaken(theirs(config)).double()
        expected = source(videos.transpose(1, 2))
        state = to_hub(source.state_dict())
        ours = TimesformerForVideoClassification(config).double().eval()
        ours.load_state_dict(state)
        assert relative_difference(ours(videos).logits, expected) < 1e-12
        for name, tensor in state.items():
            rows = tensor.roll(1, -1 if tensor.shape[0] == 1 else 0)
            ours.load_state_dict({**state, name: rows})
            assert relative_difference(ours(videos).logits, expected) > 2e-5, name


class TestInferredConfig:
    @pytest.mark.parametrize("attention", ATTENTION)
    @pytest.mark.parametrize("layout", ["hub", *LAYOUTS])
    def test_from_every_layout(self, layout: str, attention: Any) -> None:
        config = replace(CONFIG, attention_type=attention, hidden_size=128, patch_size=4, num_channels=1)
        state = to_hub(in_layout(layout, network(config).state_dict()))
        facts = TrainingFacts(num_frames=5 if attention == "space_only" else None)
        assert infer_config(state, facts) == config

    @pytest.mark.parametrize(
        "config",
        [
            replace(CONFIG, qkv_bias=False),
            replace(CONFIG, num_attention_heads=8),
            replace(CONFIG, image_size=(16, 48)),
            replace(CONFIG, image_size=27),  # three pixels that no patch has
            replace(CONFIG, patch_size=(8, 4), image_size=(24, 16)),
            replace(CONFIG, num_hidden_layers=11, id2label={}, num_labels=1),
            replace(CONFIG, id2label={0: "a", 1: "b", 2: "c"}),
        ],
        ids=["no bias", "heads", "wide", "remainder", "oblong patches", "11 layers, 1 class", "labels"],
    )
    def test_with_what_the_facts_add(self, config: TimesformerConfig) -> None:
        names = tuple(config.id2label.values())
        facts = TrainingFacts(num_heads=config.num_attention_heads, image_size=config.image_size, labels=names)
        assert infer_config(network(config).state_dict(), facts) == config

    def test_facts_against_the_shapes_are_passed_over(self) -> None:
        config = replace(CONFIG, hidden_size=128)
        wrong = TrainingFacts(num_heads=5, num_frames=96, image_size=224, labels=("a", "b"))
        assert infer_config(network(config).state_dict(), wrong) == config

    def test_frames_of_space_only_when_nothing_tells(self) -> None:
        config = replace(CONFIG, hidden_size=64, attention_type="space_only", num_attention_heads=1)
        assert infer_config(network(config).state_dict(), TrainingFacts()).num_frames == 8

    def test_heads_that_nothing_tells(self) -> None:
        with pytest.raises(ValueError, match=r"hidden size of 16 .* config\.json with num_attention_heads is needed"):
            infer_config(network(CONFIG).state_dict(), TrainingFacts())

    @pytest.mark.parametrize("size", [None, (16, 40), 48])
    def test_sides_that_nothing_tells(self, size: Any) -> None:
        config = replace(CONFIG, image_size=(16, 48))
        with pytest.raises(ValueError, match=r"12 patches of 8x8 pixels .* config\.json with image_size is needed"):
            infer_config(network(config).state_dict(), TrainingFacts(num_heads=2, image_size=size))

    def test_oblong_patches_tell_no_size(self) -> None:
        config = replace(CONFIG, patch_size=(8, 4), image_size=(16, 8))
        with pytest.raises(ValueError, match="4 patches of 8x4 pixels"):
            infer_config(network(config).state_dict(), TrainingFacts(num_heads=2))

    def test_encoders_alone_are_refused(self) -> None:
        whole = network(CONFIG)
        headless = {name: t for name, t in whole.state_dict().items() if not name.startswith("classifier")}
        for state in (whole.timesformer.state_dict(), headless):
            with pytest.raises(ValueError, match="without a classification head"):
                infer_config(state, TrainingFacts(num_heads=2))

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            ({}, "not those of a TimeSformer: no embeddings.* among no names at all"),
            ({"fc.bias": torch.zeros(1)}, "among fc.bias"),
            ({f"layer.{i}": torch.zeros(1) for i in range(9)}, r"among layer\.0, layer\.1, layer\.2, \.\.\.$"),
        ],
    )
    def test_other_networks_are_refused(self, state: dict[str, Tensor], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            infer_config(to_hub(state), TrainingFacts())

    @pytest.mark.parametrize(
        ("name", "shape"),
        [
            ("embeddings.patch_embeddings.projection.weight", (16, 192)),
            ("embeddings.patch_embeddings.projection.weight", (16, 3, 0, 8)),
            ("embeddings.position_embeddings", (10, 16)),
            ("embeddings.position_embeddings", (1, 1, 16)),
            ("embeddings.time_embeddings", (5,)),
            ("encoder.layer.0.intermediate.dense.weight", ()),
        ],
    )
    def test_odd_shapes_are_refused(self, name: str, shape: tuple[int, ...]) -> None:
        state = {**network(CONFIG).state_dict(), f"timesformer.{name}": torch.zeros(shape)}
        with pytest.raises(ValueError, match=name if shape != (1, 1, 16) else "image_size is 0"):
            infer_config(state, TrainingFacts(num_heads=2))


# As the original's configuration files lie in its checkpoints, with some of what surrounds the facts.
CFG = """
AVA: {BGR: false, DETECTION_SCORE_THRESH: 0.9, TRAIN_LISTS: [train.csv]}
BN: {NORM_TYPE: batchnorm, WEIGHT_DECAY: 0.0}
DATA:
  INPUT_CHANNEL_NUM: [3]
  MEAN:
  - 0.45
  - 0.45
  - 0.45
  NUM_FRAMES: 16
  REVERSE_INPUT_CHANNEL: false
  SAMPLING_RATE: 16
  STD: [0.225, 0.225, 0.225]
  TEST_CROP_SIZE: 448
  TRAIN_CROP_SIZE: 448
MODEL: {ARCH: vit, MODEL_NAME: vit_base_patch16_224, NUM_CLASSES: 400}
SOLVER: {WEIGHT_DECAY: 1e-4}
TIMESFORMER: {ATTENTION_TYPE: divided_space_time, PRETRAINED_MODEL: ''}
TRAIN: {BATCH_SIZE: 8, DATASET: kinetics, ENABLE: true}
"""
CFG_FACTS = TrainingFacts(
    num_frames=16,
    image_size=448,
    stride=16,
    dataset="kinetics-400",
    mean=(0.45, 0.45, 0.45),
    std=(0.225, 0.225, 0.225),
)


class TestCfg:
    def test_of_the_original(self) -> None:
        assert read_cfg(CFG) == CFG_FACTS
        assert facts_of(stored(cfg=CFG)) == CFG_FACTS

    @pytest.mark.parametrize(
        ("dataset", "classes", "expected", "stride"),
        [
            ("kinetics", 600, "kinetics-600", 16),
            ("Kinetics", 400, "kinetics-400", 16),
            ("ssv2", 174, "something-something-v2", None),
            ("ssv2", 7, "something-something-v2", None),
            ("kinetics", 174, None, 16),
            ("ava", 400, None, 16),
        ],
    )
    def test_dataset(self, dataset: str, classes: int, expected: str | None, stride: float | None) -> None:
        text = CFG.replace("DATASET: kinetics", f"DATASET: {dataset}").replace("400}", f"{classes}}}")
        facts = read_cfg(text)
        assert (facts.dataset, facts.stride) == (expected, stride)

    @pytest.mark.parametrize("section", ["TIMESFORMER", "MODEL", "VIT"])
    def test_heads(self, section: str) -> None:
        assert read_cfg(f"{section}: {{NUM_HEADS: 6}}") == TrainingFacts(num_heads=6)

    @pytest.mark.parametrize(("size", "expected"), [("[32, 64]", (32, 64)), ("[32]", 40), ("-3", 40), ("1.5", 40)])
    def test_size(self, size: str, expected: Any) -> None:
        text = f"DATA: {{TRAIN_CROP_SIZE: {size}, TEST_CROP_SIZE: 40}}"
        assert read_cfg(text) == TrainingFacts(image_size=expected)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "just words",
            "[1, 2]",
            "DATA: [1]",
            "DATA: {NUM_FRAMES: eight}",
            "DATA: {NUM_FRAMES: true, SAMPLING_RATE: 0, TRAIN_CROP_SIZE: [a, b]}",
            "DATA: {NUM_FRAMES: -8, SAMPLING_RATE: .nan, MEAN: 0.45, STD: [0.225, 0, 0.225]}",
            "DATA: {MEAN: [.inf, 0, 0], STD: []}",
            "MODEL: {NUM_CLASSES: [400], NUM_HEADS: 0}",
            "TRAIN: {DATASET: [kinetics]}",
            "{unclosed",
            "a: b: c",
            "DATA: {NUM_FRAMES: 2021-99-99}",
            "DATA: {NUM_FRAMES: !!timestamp eight}",
            "DATA: {NUM_FRAMES: !!bool eight}",
            f"DATA: {{SAMPLING_RATE: 1{'0' * 400}, MEAN: [1{'0' * 400}], STD: [.inf]}}",
            "!!python/object/apply:os.mkdir [witness]",
            "[" * 5000,
            "\x00",
        ],
    )
    def test_what_cannot_be_understood_says_nothing(self, text: str, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.chdir(tmp_path)
        assert read_cfg(text) == TrainingFacts()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("cfg", [None, 3, ["DATA"], {"DATA": {"NUM_FRAMES": 3}}, torch.zeros(2)])
    def test_what_is_no_text_says_nothing(self, cfg: Any) -> None:
        assert facts_of(stored(cfg=cfg)) == TrainingFacts()


# As mmaction2's configurations are printed into `meta`.
MMACTION2_CFG = """
ann_file_test = 'data/kinetics400/kinetics400_val_list_videos.txt'
dataset_type = 'VideoDataset'
model = dict(
    backbone=dict(
        attention_type='space_only', img_size=224, norm_cfg=dict(eps=1e-06, type='LN'), num_frames=16,
        pretrained='https://example.org/sthv2.pth', type='TimeSformer'),
    data_preprocessor=dict(
        format_shape='NCTHW', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 51.0], type='ActionDataPreprocessor'),
    type='Recognizer3D')
pattern = '\\d+'
test_pipeline = [
    dict(io_backend='disk', type='DecordInit'),
    dict(clip_len=16, frame_interval=8, num_clips=1, test_mode=True, type='SampleFrames'),
]
"""
MMACTION2_FACTS = TrainingFacts(
    num_frames=16,
    image_size=224,
    stride=8,
    dataset="kinetics-400",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.2),
)


class TestMeta:
    @pytest.mark.parametrize("name", ["cfg", "config"])
    def test_configuration(self, name: str) -> None:
        assert facts_of(stored(meta={name: MMACTION2_CFG})) == MMACTION2_FACTS

    @pytest.mark.parametrize(
        "meta",
        [
            {"CLASSES": ["a", "b"]},
            {"CLASSES": ("a", "b")},
            {"dataset_meta": {"classes": ["a", "b"]}},
        ],
    )
    def test_classes(self, meta: Any) -> None:
        assert facts_of(stored(meta=meta)) == TrainingFacts(labels=("a", "b"))

    @pytest.mark.parametrize(
        "meta",
        [
            None,
            [],
            {},
            {"CLASSES": None},
            {"CLASSES": []},
            {"CLASSES": ["a", 3]},
            {"CLASSES": "ab"},
            {"CLASSES": torch.zeros(2), "cfg": torch.zeros(2)},
            {"dataset_meta": []},
            {"dataset_meta": {"classes": {"a": 0}}},
            {"cfg": "not python at all", "CLASSES": 3},
            {"cfg": "open('witness', 'w'); num_frames = open('witness', 'w')"},
            {"cfg": "model = dict(num_frames='8', img_size=[1, 2, 3], mean=127.5, std=[0], num_heads=None)"},
            {"cfg": "(" * 5000},
            {"cfg": "\x00"},
        ],
    )
    def test_what_cannot_be_understood_says_nothing(self, meta: Any, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.chdir(tmp_path)
        assert facts_of(stored(meta=meta)) == TrainingFacts()
        assert list(tmp_path.iterdir()) == []

    def test_data_of_something_something(self) -> None:
        cfg = "data = dict(train=dict(data_root='data/sthv2/videos'))"
        assert facts_of(stored(meta={"cfg": cfg})) == TrainingFacts(dataset="something-something-v2")


class TestFiles:
    """From a file of another's form to a network of ours, without a config."""

    @pytest.mark.parametrize("attention", ATTENTION)
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_opens(self, layout: str, attention: Any, tmp_path: Path) -> None:
        config = replace(CONFIG, attention_type=attention, hidden_size=128, num_attention_heads=2, image_size=32)
        expected = network(config).state_dict()
        if layout == "original":
            cfg = yaml.safe_dump({"DATA": {"NUM_FRAMES": 5, "SAMPLING_RATE": 32}})
            path = save_pyth(tmp_path / "some.pyth", expected, cfg=cfg)
        else:
            path = save_mmaction2(tmp_path / "some.pth", expected, cfg="dict(num_frames=5, frame_interval=32)")
        read = read_stored(path)
        facts, state = facts_of(read), to_hub(read.state)
        assert facts == TrainingFacts(num_frames=5, stride=32)
        assert infer_config(state, facts) == config
        assert_same(state, expected)
        opened = TimesformerForVideoClassification.from_pretrained(path, dtype=None)
        assert opened.config == config
        assert_same(opened.state_dict(), expected)
        encoder = TimesformerModel.from_pretrained(path, dtype=None)
        assert_same(encoder.state_dict(), network(config).timesformer.state_dict())


class TestWriting:
    @pytest.fixture
    def config(self) -> TimesformerConfig:
        extra = {"trained_by": {"name": "Zoë"}}
        return replace(CONFIG, id2label={0: "left", 1: "right", 2: "größer"}, drop_path_rate=0.1, extra=extra)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("attention", ATTENTION)
    def test_nothing_is_lost(self, config: Any, attention: Any, dtype: torch.dtype, tmp_path: Path) -> None:
        config = replace(config, attention_type=attention)
        state = network(config).to(dtype).state_dict()
        write_pyth(tmp_path / "some.pyth", state, config, recipe=RECIPE)
        assert [path.name for path in tmp_path.iterdir()] == ["some.pyth"]
        read = read_stored(tmp_path / "some.pyth")
        facts = facts_of(read)
        assert_same(to_hub(read.state), state)
        assert facts == TrainingFacts(config=config, recipe=RECIPE, labels=("left", "right", "größer"))

    def test_classes_of_a_published_data_set(self, config: TimesformerConfig, tmp_path: Path) -> None:
        """By their names: a model of as many other classes is not taken for one."""
        for names, dataset in ((labels.read("something-something-v2"), "something-something-v2"), (range(174), None)):
            config = replace(config, id2label=dict(enumerate(map(str, names))))
            write_pyth(tmp_path / "some.pyth", {}, config, recipe=RECIPE)
            facts = facts_of(read_stored(tmp_path / "some.pyth"))
            assert (facts.labels, facts.dataset) == (tuple(map(str, names)), dataset)

    def test_nothing_is_lost_of_an_odd_recipe(self, config: TimesformerConfig, tmp_path: Path) -> None:
        recipe = Recipe(
            base="preprocessor_config.json",
            sampling=SamplingSpec(num_frames=5, method="segments"),
            preprocess=PreprocessSpec(
                size=(24, 24), short_side=24, stretch=(30, 40), resize="antialias", interpolation="bicubic"
            ),
        )
        write_pyth(tmp_path / "some.pyth", {}, config, recipe=recipe)
        assert facts_of(read_stored(tmp_path / "some.pyth")).recipe == recipe

    @pytest.mark.parametrize("attention", ATTENTION)
    def test_the_original_reads_it(self, config: Any, attention: Any, tmp_path: Path) -> None:
        config = replace(config, attention_type=attention)
        ours = network(config).float()
        write_pyth(tmp_path / "some.pyth", ours.state_dict(), config, recipe=RECIPE)
        content = torch.load(tmp_path / "some.pyth", weights_only=True)
        assert content["epoch"] == 0
        holder = nn.Module()  # the original's own network has another one in it, called model
        holder.model = Original(config)
        holder.load_state_dict(content["model_state"], strict=True)
        videos = torch.randn(1, 5, 3, 24, 24)
        with torch.no_grad():
            assert relative_difference(holder.model.eval()(videos.transpose(1, 2)), ours(videos).logits) < 2e-5

    @pytest.mark.parametrize(("method", "dataset", "stride"), [("window", "kinetics", 7.5), ("segments", "ssv2", None)])
    def test_the_originals_own_settings(self, method: Any, dataset: str, stride: Any, tmp_path: Path) -> None:
        config = replace(CONFIG, id2label={}, num_labels=174, image_size=(24, 32), num_attention_heads=4)
        sampling = replace(RECIPE.sampling, method=method, clips=None)
        write_pyth(tmp_path / "some.pyth", {}, config, recipe=replace(RECIPE, sampling=sampling))
        text = torch.load(tmp_path / "some.pyth", weights_only=True)["cfg"]
        values = yaml.safe_load(text)
        assert values["MODEL"]["NUM_CLASSES"] == 174
        assert values["TIMESFORMER"]["ATTENTION_TYPE"] == "divided_space_time"
        assert values["TRAIN"]["DATASET"] == dataset
        assert read_cfg(text) == TrainingFacts(
            num_heads=4,
            num_frames=5,
            image_size=(24, 32),
            stride=stride,
            dataset="something-something-v2" if dataset == "ssv2" else None,
            mean=RECIPE.preprocess.mean,
            std=RECIPE.preprocess.std,
        )

    def test_hub_to_original_to_hub(self, config: TimesformerConfig, tmp_path: Path) -> None:
        """Also from a safetensors file, whose tensors share one memory."""
        state = network(config).to(torch.bfloat16).state_dict()
        save_file(state, tmp_path / "first.safetensors")
        for name in ("second.pyth", "third.pyth"):
            source = tmp_path / ("first.safetensors" if name == "second.pyth" else "second.pyth")
            write_pyth(tmp_path / name, to_hub(read_state_dict(source)), config, recipe=RECIPE)
        assert_same(to_hub(read_state_dict(tmp_path / "third.pyth")), load_file(tmp_path / "first.safetensors"))
        assert (tmp_path / "second.pyth").read_bytes() == (tmp_path / "third.pyth").read_bytes()
        size = sum(tensor.nbytes for tensor in state.values())
        assert (tmp_path / "second.pyth").stat().st_size < size + 300 * len(state) + 10_000, "no memory is saved twice"

    @pytest.mark.parametrize("stated", ["softmax", None])
    def test_the_activation(self, config: TimesformerConfig, stated: Any, tmp_path: Path) -> None:
        """Files of earlier versions do not state it, and their config decides."""
        several = replace(config, problem_type="multi_label_classification")
        write_pyth(tmp_path / "some.pyth", network(several).state_dict(), several, recipe=RECIPE)
        content = torch.load(tmp_path / "some.pyth", weights_only=True)
        own = json.loads(content["timesformer_cli"])
        if stated is None:
            del own["recipe"]["activation"]
        torch.save({**content, "timesformer_cli": json.dumps(own)}, tmp_path / "some.pyth")
        recipe = facts_of(read_stored(tmp_path / "some.pyth")).recipe
        assert recipe is not None
        assert recipe.activation == (stated or "sigmoid")

    def test_over_the_file_it_came_from(self, config: TimesformerConfig, tmp_path: Path) -> None:
        path = tmp_path / "some.pyth"
        expected = network(config).state_dict()
        write_pyth(path, expected, config, recipe=RECIPE)
        mapped = to_hub(read_state_dict(path))
        write_pyth(path, mapped, config, recipe=RECIPE)
        assert_same(to_hub(read_state_dict(path)), expected)
        assert_same(mapped, expected)

    @pytest.mark.parametrize(
        "error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos"), KeyboardInterrupt()]
    )
    def test_a_write_cut_short_leaves_the_old_file(
        self, error: BaseException, config: TimesformerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "some.pyth"
        path.write_text("old")

        def save(content: Any, file: io.BufferedWriter) -> None:
            file.write(b"half")
            raise error

        monkeypatch.setattr(torch, "save", save)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OSError):
            write_pyth(path, {}, config, recipe=RECIPE)
        assert [file.name for file in tmp_path.iterdir()] == ["some.pyth"]
        assert path.read_text() == "old"

    def test_a_folder_that_is_not_there(self, config: TimesformerConfig, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="No such file"):
            write_pyth(tmp_path / "nowhere" / "some.pyth", {}, config, recipe=RECIPE)

    @pytest.mark.parametrize(
        "own",
        [
            "",
            "{",
            "[]",
            3,
            b"{}",
            {"config": {}},
            json.dumps({"config": {}}),
            json.dumps({"config": {"num_frames": "8"}, "recipe": {}}),
            json.dumps({"config": {}, "recipe": {"name": "a", "sampling": {"num_frames": 8}, "preprocess": 3}}),
            json.dumps({"config": {}, "recipe": {"name": "a", "sampling": {"future": 8}, "preprocess": {}}}),
        ],
    )
    def test_settings_that_cannot_be_read(self, own: Any) -> None:
        with pytest.raises(
            CheckpointError, match=r"^some\.pyth: its timesformer_cli settings cannot be read \(.*newer"
        ):
            facts_of(stored(timesformer_cli=own))


# The published checkpoints: classes, frames, size, parameters.
PUBLISHED = {
    "base-k400": (400, 8, 224, 121_566_352),
    "base-k600": (600, 8, 224, 121_720_152),
    "base-ssv2": (174, 8, 224, 121_392_558),
    "hr-k400": (400, 16, 448, 122_024_080),
    "hr-k600": (600, 16, 448, 122_177_880),
    "hr-ssv2": (174, 16, 448, 121_850_286),
    "large-k400": (400, 96, 224, 121_633_936),
    "large-k600": (600, 96, 224, 121_787_736),
    "large-ssv2": (174, 64, 224, 121_435_566),
}
ABLATIONS = {"joint_space_time": 86_112_400, "space_only": 86_106_256}


def published() -> Iterator[tuple[str, TimesformerConfig, int]]:
    for name, (classes, frames, size, count) in PUBLISHED.items():
        yield name, TimesformerConfig(num_labels=classes, num_frames=frames, image_size=size), count
    for attention, count in ABLATIONS.items():
        yield attention, TimesformerConfig(num_labels=400, attention_type=attention), count


class TestPublishedShapes:
    @pytest.mark.parametrize(("name", "config", "count"), list(published()), ids=[name for name, _, _ in published()])
    def test_parameters_and_inferred_config(self, name: str, config: TimesformerConfig, count: int) -> None:
        with torch.device("meta"):
            state = TimesformerForVideoClassification(config).state_dict()
            theirs = Original(config), Mmaction2(config)
        assert sum(tensor.numel() for tensor in state.values()) == count
        for other in theirs:
            converted = to_hub(other.state_dict())
            check_state_dict(converted, state, name)
            assert infer_config(converted, TrainingFacts()) == config

    @pytest.mark.parametrize("layout", ["hub", *LAYOUTS])
    def test_whole_files(self, layout: str, tmp_path: Path) -> None:
        """Of layers that are alike, three: all twelve are half a gigabyte."""
        config = TimesformerConfig(num_labels=400, num_hidden_layers=3)
        with torch.device("meta"):
            model = TimesformerForVideoClassification(config)
        generator = torch.Generator().manual_seed(3)
        expected = {name: torch.rand(t.shape, generator=generator) for name, t in model.state_dict().items()}
        path = tmp_path / "weights.pth"
        if layout == "hub":
            torch.save(expected, path)
        elif layout == "original":
            torch.save({"epoch": 14, "model_state": original_state(expected), "cfg": CFG}, path)
        else:
            save_mmaction2(path, expected, cfg=MMACTION2_CFG)
        state = to_hub(read_state_dict(path))
        path.unlink()
        assert infer_config(state, TrainingFacts()) == config
        check_state_dict(state, model.state_dict(), layout)
        assert_same(state, expected)
