"""Settings refuse what cannot be, by name, and survive the way to JSON and back."""

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timesformer_cli.specs import Checkpoint, PreprocessSpec, Reading, Recipe, SamplingSpec, TimesformerConfig


class TestConfig:
    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("image_size", [0, -224, 224.0, "224", None, True, [224], [224, 0], (1, 2, 3), {"height": 224}]),
            ("patch_size", [0, 16.0, "16", None, [16], (16, -1)]),
            ("num_channels", [0, -1, 3.0, "3", None, True]),
            ("num_frames", [0, 8.5]),
            ("hidden_size", [0, "768"]),
            ("num_hidden_layers", [0]),
            ("num_attention_heads", [0]),
            ("intermediate_size", [0]),
            ("num_labels", [0, -1, None]),
            ("hidden_act", [None, 3, ["gelu"]]),
            ("hidden_dropout_prob", [-0.1, 1, "0.1", None, math.nan, True]),
            ("attention_probs_dropout_prob", [-0.1, 1.0]),
            ("drop_path_rate", [-0.1, 1.0]),
            ("initializer_range", [0, -0.02, "0.02", math.nan]),
            ("layer_norm_eps", [0, None]),
            ("qkv_bias", ["false", 0, None]),
            ("attention_type", ["divided", "", None, ["space_only"]]),
            ("problem_type", ["classification", ""]),
            ("id2label", [["a", "b"], "ab", None, 3]),
        ],
    )
    def test_a_field_that_cannot_be_so_is_named(self, name: str, values: list[Any]) -> None:
        for value in values:
            with pytest.raises(ValueError, match=rf"^{name} is .+; it must be "):
                TimesformerConfig(**{name: value})

    def test_unknown_attention_type_lists_the_known(self) -> None:
        with pytest.raises(
            ValueError,
            match=r"attention_type is 'axial'; it must be one of divided_space_time, joint_space_time, space_only$",
        ):
            TimesformerConfig.from_dict({"attention_type": "axial"})

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"hidden_size": 100, "num_attention_heads": 12}, "hidden_size 100 .* num_attention_heads 12"),
            ({"image_size": 8}, "patch_size 16 .* image_size 8"),
            ({"image_size": (32, 8)}, r"patch_size 16 .* image_size \(32, 8\)"),
            ({"id2label": {0: "a", 2: "b"}}, "id2label must map the numbers from 0 to 1 to its 2 labels"),
            ({"id2label": {"0": "a", 0: "b"}}, "id2label"),
            ({"id2label": {"zero": "a"}}, "id2label"),
            ({"id2label": {None: "a"}}, "id2label"),
        ],
    )
    def test_fields_that_contradict_each_other(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            TimesformerConfig(**values)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ([], "not a JSON object"),
            ("config", "not a JSON object"),
            ({"model_type": "vivit"}, "model_type is 'vivit'"),
            ({"num_labels": 4, "id2label": {"0": "a"}}, "num_labels is 4, but id2label has 1 labels"),
        ],
    )
    def test_content_of_another_kind(self, values: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            TimesformerConfig.from_dict(values)

    @pytest.mark.parametrize(
        ("image_size", "patch_size", "hw", "grid"),
        [
            (224, 16, (224, 224), (14, 14)),
            ([160, 224], 16, (160, 224), (10, 14)),
            ((100, 70), [16, 8], (100, 70), (6, 8)),
        ],
    )
    def test_sizes(self, image_size: Any, patch_size: Any, hw: tuple[int, int], grid: tuple[int, int]) -> None:
        config = TimesformerConfig(image_size=image_size, patch_size=patch_size)
        assert config.image_hw == hw
        assert config.grid == grid
        assert TimesformerConfig(image_size=hw, patch_size=config.patch_hw).grid == grid

    def test_labels(self) -> None:
        assert TimesformerConfig(num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
        config = TimesformerConfig.from_dict({"id2label": {str(i): f"class {i}" for i in reversed(range(12))}})
        assert config.num_labels == 12
        assert list(config.id2label.items()) == [(i, f"class {i}") for i in range(12)]
        assert replace(config, id2label={0: "one"}).num_labels == 1

    def test_nulls_are_defaults(self) -> None:
        values = {"problem_type": None, "id2label": None, "num_labels": None, "num_frames": None}
        assert TimesformerConfig.from_dict(values) == TimesformerConfig()

    def test_is_frozen(self) -> None:
        with pytest.raises(FrozenInstanceError):
            TimesformerConfig().num_frames = 16  # type: ignore[misc]

    def test_copies(self) -> None:
        config = TimesformerConfig(id2label={0: "a"}, extra={"note": [1]})
        assert pickle.loads(pickle.dumps(config)) == config
        assert copy.deepcopy(config) == config

    @given(
        st.builds(
            TimesformerConfig,
            image_size=st.integers(32, 64) | st.tuples(st.integers(32, 64), st.integers(32, 64)),
            patch_size=st.integers(1, 32) | st.tuples(st.integers(1, 32), st.integers(1, 32)),
            num_channels=st.integers(1, 4),
            num_frames=st.integers(1, 96),
            num_hidden_layers=st.integers(1, 24),
            hidden_dropout_prob=st.floats(0, 0.99),
            drop_path_rate=st.floats(0, 0.99),
            layer_norm_eps=st.floats(1e-12, 1e-3),
            qkv_bias=st.booleans(),
            hidden_act=st.sampled_from(["gelu", "relu"]),
            attention_type=st.sampled_from(["divided_space_time", "joint_space_time", "space_only"]),
            problem_type=st.sampled_from([None, "regression", "multi_label_classification"]),
            id2label=st.lists(st.text(), max_size=5).map(lambda labels: dict(enumerate(labels))),
            extra=st.dictionaries(st.sampled_from(["architectures", "note", "extra"]), st.text() | st.lists(st.text())),
        )
    )
    def test_there_and_back(self, config: TimesformerConfig) -> None:
        assert TimesformerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    def test_folder_there_and_back(self, tmp_path: Path) -> None:
        config = TimesformerConfig(
            image_size=(160, 224), id2label={0: "höher", 1: "下"}, extra={"note": {"a": [1, None]}}
        )
        config.save_pretrained(tmp_path / "new" / "folder")
        assert TimesformerConfig.from_pretrained(tmp_path / "new" / "folder") == config
        assert "下" in (tmp_path / "new" / "folder" / "config.json").read_text(encoding="utf-8")

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            TimesformerConfig.from_pretrained(tmp_path)


class TestSampling:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("num_frames", 0),
            ("stride", 0),
            ("fps", -1.0),
            ("fps", 0),
            ("fps", "30"),
            ("clips", 0),
            ("method", "dense"),
            ("placement", "last"),
            ("overrun", "mirror"),
        ],
    )
    def test_refusals_name_the_field(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"^{name} is "):
            SamplingSpec(**{"num_frames": 8} | {name: value})

    def test_clips_may_be_left_to_the_length_of_the_video(self) -> None:
        assert SamplingSpec(num_frames=8).clips is None

    @pytest.mark.parametrize("method", ["window", "strided"])
    def test_the_rate_may_be_the_video_s_own(self, method: Any) -> None:
        spec = SamplingSpec(num_frames=8, method=method, fps=None, clips=3, overrun="loop")
        assert SamplingSpec(**json.loads(json.dumps(asdict(spec)))) == spec


class TestReading:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("decoder", "ffmpeg"),
            ("max_pixels", 0),
            ("max_frames", 1.5),
            ("max_fetched_bytes", -1),
            ("fetch_timeout", 0),
            ("fetch_wait", -1.0),
            ("frame_rate", "30"),
            ("threads", 0),
            ("min_shared_pixels", 0),
            ("max_decoder_bytes", 2.0**30),
            ("max_kept_bytes", True),
            ("max_frame_bytes", None),
        ],
    )
    def test_refusals_name_the_field(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"^{name} is "):
            Reading(**{name: value})

    def test_json(self) -> None:
        assert Reading(**json.loads(json.dumps(asdict(Reading())))) == Reading()


class TestPreprocess:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("size", (0, 224)),
            ("size", 224),
            ("short_side", 200),
            ("crops", 2),
            ("mean", (0.5,)),
            ("std", (0.2, 0.0, 0.2)),
            ("stretch", 224),
            ("stretch", (224,)),
            ("stretch", (224.0, 224)),
            ("stretch", (256, 200)),
            ("resize", "stretch"),
            ("channel_order", "hsv"),
            ("interpolation", 2),
            ("interpolation", "bicubic"),
        ],
    )
    def test_refusals_name_the_field(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"^{name} "):
            PreprocessSpec(**{"size": (224, 224), "short_side": 256} | {name: value})

    def test_stretched_frames_have_one_crop(self) -> None:
        with pytest.raises(ValueError, match="crops is 3, but the frames of this model are stretched to its size"):
            PreprocessSpec(size=(224, 224), short_side=224, stretch=(256, 256), crops=3)

    @pytest.mark.parametrize("stretch", [None, (256, 300)])
    def test_there_and_back(self, stretch: tuple[int, int] | None) -> None:
        spec = PreprocessSpec(
            size=(224, 224), short_side=224, stretch=stretch, resize="antialias", interpolation="bicubic"
        )
        assert PreprocessSpec(**json.loads(json.dumps(asdict(spec)))) == spec


@pytest.mark.parametrize(
    ("problem", "classes", "activation"),
    [
        (None, 2, "softmax"),
        (None, 1, "sigmoid"),
        ("single_label_classification", 2, "softmax"),
        ("single_label_classification", 1, "sigmoid"),
        ("multi_label_classification", 2, "sigmoid"),
        ("multi_label_classification", 1, "sigmoid"),
        ("regression", 1, "none"),
        ("regression", 2, "none"),
    ],
)
def test_the_problem_decides_on_the_activation(problem: Any, classes: int, activation: str) -> None:
    config = TimesformerConfig(problem_type=problem, num_labels=classes)
    assert config.activation == activation
    assert TimesformerConfig.from_dict(config.to_dict()).activation == activation


class TestRecipe:
    def test_there_and_back_with_an_activation(self) -> None:
        sampling, preprocess = SamplingSpec(num_frames=8), PreprocessSpec(size=(32, 32), short_side=32)
        recipe = Recipe(base="own", sampling=sampling, preprocess=preprocess, activation="sigmoid")
        values = json.loads(json.dumps(recipe.to_dict()))
        assert Recipe.from_dict(values) == recipe
        del values["activation"]  # as earlier versions wrote it
        assert Recipe.from_dict(values).activation == "softmax"
        assert Recipe.from_dict(values, recipe).activation == "sigmoid"

    def test_an_unknown_activation_is_refused(self) -> None:
        sampling, preprocess = SamplingSpec(num_frames=8), PreprocessSpec(size=(32, 32), short_side=32)
        with pytest.raises(ValueError, match=r"^activation is 'tanh'; known are softmax, sigmoid, none$"):
            Recipe(base="own", sampling=sampling, preprocess=preprocess, activation="tanh")  # type: ignore[arg-type]

    def test_a_refusal_names_the_field(self) -> None:
        sampling, preprocess = SamplingSpec(num_frames=8), PreprocessSpec(size=(32, 32), short_side=32)
        with pytest.raises(ValueError, match=r"^combine is 'sum'; known are logits, probabilities, raw_logits$"):
            Recipe(base="own", sampling=sampling, preprocess=preprocess, combine="sum")  # type: ignore[arg-type]
        for name in (3, None, ["a"], {}):
            with pytest.raises(ValueError, match=r"^name is .*; it must be a text$"):
                Recipe(base=name, sampling=sampling, preprocess=preprocess)  # type: ignore[arg-type]


class TestCheckpoint:
    @staticmethod
    def build(**changes: Any) -> Checkpoint:
        parts: dict[str, Any] = {
            "name": "tiny",
            "config": TimesformerConfig(image_size=32, num_labels=2),
            "recipe": Recipe(
                base="original",
                sampling=SamplingSpec(num_frames=8),
                preprocess=PreprocessSpec(size=(32, 32), short_side=32),
            ),
            "labels": ("a", "b"),
            "weights": Path("tiny/model.safetensors"),
            "source": "a folder",
        }
        return Checkpoint(**parts | changes)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"labels": ("a",)}, "1 labels for a model of 2 classes"),
            ({"config": TimesformerConfig(num_channels=1)}, "3 channel means for a model of 1 channels"),
            ({"recipe": {"preprocess": PreprocessSpec(size=(8, 32), short_side=32)}}, r"crops of \(8, 32\)"),
        ],
    )
    def test_parts_that_disagree(self, changes: dict[str, Any], message: str) -> None:
        if "recipe" in changes:
            changes = {"recipe": replace(self.build().recipe, **changes["recipe"])}
        with pytest.raises(ValueError, match=message):
            self.build(**changes)

    def test_the_recipe_s_parts_are_at_hand(self) -> None:
        checkpoint = self.build()
        recipe = checkpoint.recipe
        expected = (recipe.sampling, recipe.preprocess, recipe.combine)
        assert (checkpoint.sampling, checkpoint.preprocess, checkpoint.combine) == expected

    def test_survives_the_way_to_another_process(self) -> None:
        checkpoint = self.build()
        assert pickle.loads(pickle.dumps(checkpoint)) == checkpoint
