"""Operations of an int8 file that stay in float: the named ones, or as few as its answers need."""

import json

import keras
import numpy as np
import pytest

from se_keras import export
from se_keras.export import keep_float as module
from se_keras.export.agreement import Limits
from se_keras.export.inspect_tflite import Operation, Tensor, TFLiteGraph, read_tflite
from se_keras.export.keep_float import _fewest, names_to_keep
from se_keras.export.tflite_runtime import TFLiteRunner


@pytest.fixture(scope="module")
def images():
    """Each of one color and some noise, so that they differ much."""
    rng = np.random.default_rng(0)
    colors = rng.uniform(0, 255, (100, 1, 1, 3)) + rng.normal(0, 10, (100, 8, 8, 3))
    return colors.clip(0, 255).astype("float32")


@pytest.fixture(scope="module")
def spoiled():
    """A classifier whose second layer has one huge output, which nothing reads: 8 bits leave no room for the others."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="first")(x)
    x = keras.layers.Conv2D(8, 3, padding="same", name="huge")(x)
    x = keras.layers.Conv2D(8, 3, name="third")(x)
    x = keras.layers.Flatten()(keras.layers.Conv2D(8, 3, activation="relu", name="fourth")(x))
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x), name="spoiled")
    huge, third = model.get_layer("huge"), model.get_layer("third")
    kernel, reader = huge.kernel.numpy(), third.kernel.numpy()
    kernel[..., 0] *= 60
    reader[:, :, 0] = 0
    huge.kernel.assign(kernel)
    third.kernel.assign(reader)
    return model


def written(model, images, path, **options):
    export.tflite(model, path, dtype="int8", data=images, verbose=0, **options)
    same = TFLiteRunner(path)(images).argmax(-1) == model.predict(images, verbose=0).argmax(-1)
    return same.mean(), read_tflite(path).names_in_float(), json.loads(path.with_suffix(".json").read_text("utf-8"))


def test_auto_keeps_only_what_it_must(spoiled, images, tmp_path, monkeypatch):
    monkeypatch.setitem(module.LIMITS, "int8", Limits(top1_agreement=0.9))  # a random network has near ties
    before, none, plain = written(spoiled, images, tmp_path / "int8.tflite")
    assert before < 0.8
    assert none == []
    assert "keep_float" not in plain
    after, kept, description = written(spoiled, images, tmp_path / "auto.tflite", keep_float="auto")
    assert after >= 0.95
    assert any("huge" in name for name in kept)
    assert len(kept) == 2  # with the layer that reads it
    assert description["keep_float"] == kept
    report = export.verify(tmp_path / "auto.tflite", spoiled, data=images, gpu_images=0, repeats=0)
    assert (report.passed, report.dtype, report.in_float) == (True, "int8", tuple(kept))
    assert f"{len(kept)} of " in str(report)


@pytest.mark.slow
def test_hard_swishes_stay_in_float_unless_everything_is_to_be_an_integer(images, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(x)
    for number in range(2):
        x = keras.layers.Conv2D(8, 3, name=f"conv{number}")(x)
        x = keras.layers.Activation("hard_silu", name=f"act{number}")(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(keras.layers.GlobalAveragePooling2D()(x)))
    fast, kept, description = written(model, images, tmp_path / "fast.tflite")
    assert [name.split("/")[1] for name in kept] == ["act0_1", "act1_1"]
    assert description["keep_float"] == kept
    _, more, _ = written(model, images, tmp_path / "more.tflite", keep_float=["conv1"])
    assert set(kept) < set(more)
    whole, none, description = written(model, images, tmp_path / "whole.tflite", keep_float=[])
    assert (none, "keep_float" in description) == ([], False)
    assert _pieces(tmp_path / "whole.tflite") - _pieces(tmp_path / "fast.tflite") == 2  # one for each hard swish
    assert min(fast, whole) > 0.9


def _pieces(path):
    """The number of parts that LiteRT's fast kernels for CPUs compute; slow ones compute what is between them."""
    return [one["op_name"] for one in TFLiteRunner(path).interpreter._get_ops_details()].count("DELEGATE")


@pytest.mark.slow
def test_layers_are_kept_by_name(spoiled, images, tmp_path):
    _, kept, _ = written(spoiled, images, tmp_path / "named.tflite", keep_float=["third"])
    assert [name.split("/")[1] for name in kept] == ["third_1", "fourth_1"]  # the layer, and the one that reads it
    with pytest.raises(ValueError, match="it has none named 'fifth'"):
        export.tflite(spoiled, tmp_path / "a.tflite", dtype="int8", data=images, keep_float=["fifth"], verbose=0)
    with pytest.raises(ValueError, match="`keep_float` must be 'auto' or a list of names; received 'third'"):
        export.tflite(spoiled, tmp_path / "a.tflite", dtype="int8", data=images, keep_float="third", verbose=0)
    with pytest.raises(ValueError, match="`keep_float` requires dtype='int8'; received dtype='fp16'"):
        export.tflite(spoiled, tmp_path / "a.tflite", dtype="fp16", keep_float="auto")


def test_auto_keeps_nothing_where_it_does_not_pay(spoiled, images, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_SHARE", 0.0)
    with pytest.warns(UserWarning, match=r"calibration images: at least 98.0% must have the same top class"):
        _, kept, _ = written(spoiled, images, tmp_path / "auto.tflite", keep_float="auto")
    assert kept == []


@pytest.mark.parametrize("needed", range(1, 12))
def test_fewest_is_the_smallest_that_suffices(needed):
    tried = []

    def suffices(count):
        tried.append(count)
        return count >= needed

    assert _fewest(suffices, 11) == needed
    assert len(tried) <= 8
    assert _fewest(lambda count: False, 11) is None


def graph_of(*operations):
    """Returns the structure of a file from (operation, what it reads, what it computes); a shape stands for weights."""

    def tensor(what):
        constant = isinstance(what, tuple)
        return Tensor(0, "weights" if constant else what, what if constant else (1, 8), "FLOAT32", constant)

    made = [Operation(name, False, tuple(map(tensor, reads)), (tensor(out),)) for name, reads, out in operations]
    return TFLiteGraph(tuple(made), made[0].inputs[:1], made[-1].outputs)


def stem_and_block(swish, depthwise=(1, 3, 3, 2)):
    operations = [
        ("ADD", ["images", (3,)], "normalized"),
        ("CONV_2D", ["normalized", (2, 3, 3, 3)], "stem"),
        *swish,
        ("DEPTHWISE_CONV_2D", ["swish", depthwise], "depthwise"),
        ("MEAN", ["depthwise", (2,)], "squeeze"),
        ("CONV_2D", ["squeeze", (100, 1, 1, 2)], "wide"),
        ("HARD_SWISH", ["wide"], "wide_swish"),
    ]
    rest = [("FULLY_CONNECTED", [f"{place or 'wide_swish'}", (9, 9)], f"{place + 1}") for place in range(9)]
    return graph_of(*operations, *rest)


HARD = [("HARD_SWISH", ["stem"], "swish")]


@pytest.mark.parametrize("swish", [HARD, [("LOGISTIC", ["stem"], "gate"), ("MUL", ["stem", "gate"], "swish")]])
def test_the_first_layers_of_a_tflite_graph_and_its_hard_swishes_stay_in_float(swish):
    first = ["normalized", "stem", *(out for _, _, out in swish), "depthwise", "squeeze"]
    assert names_to_keep(stem_and_block(swish), None) == [*first, "wide_swish"]
    assert names_to_keep(stem_and_block(swish), []) == []
    named = names_to_keep(stem_and_block(swish), ["3"])
    assert named == [*first, "wide_swish", "3", "4"]  # with the layer that reads it


def test_the_weights_of_a_tflite_layer_decide_where_its_first_layers_end():
    heavier = stem_and_block(HARD, depthwise=(1, 5, 6, 2))  # 60, more than the 54 of the stem
    assert names_to_keep(heavier, None) == ["normalized", "stem", "swish", "wide_swish"]
    computed = stem_and_block(HARD, depthwise="images")
    assert names_to_keep(computed, None)[3] == "depthwise"
