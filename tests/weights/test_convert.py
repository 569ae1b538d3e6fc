"""The conversion engine: complete or not at all, strict on names and shapes, and its message readable."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
import numpy as np
import pytest

import se_keras
from se_keras.errors import WeightsMismatchError
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS
from se_keras.weights.convert import assign, convert, expected_tensors
from se_keras.weights.rules import FAMILIES

NETWORK_OF = {
    "caffe_bn_inception": "se_bn_inception",
    "caffe_resnet": "se_resnext50",
    "timm": "se_resnet50",
    "timm_d": "se_resnext26d",
    "timm_legacy": "se_resnet18",
    "timm_mobile": "mobilenetv3_small_050",
    "timm_regnet": "regnety_002",
}

Tensors = dict[str, np.ndarray]


@functools.cache
def network(identifier: str, **options: object) -> keras.Model:
    """The network without preprocessing, built once for all tests: what it holds is left over from the last of them."""
    return assemble(identifier, NETWORKS[identifier], Options(include_preprocessing=False, **options))


def indexed(model: keras.Model, family: str) -> Tensors:
    """A checkpoint in which no two numbers of a tensor are equal, nor the sums of two tensors."""
    shapes = expected_tensors(model, family)
    return {
        name: np.arange(np.prod(shape), dtype=np.float64).reshape(shape) + 0.001 * number
        for number, (name, shape) in enumerate(shapes.items(), start=1)
    }


@pytest.fixture(scope="module")
def resnet18() -> keras.Model:
    return network("se_resnet18")


def value(model: keras.Model, layer: str, variable: str) -> np.ndarray:
    return {weight.name: np.asarray(weight) for weight in model.get_layer(layer).weights}[variable]


def fill(tensors: Tensors, model: keras.Model, family: str) -> None:
    assign(model, convert(tensors, model, family))


def snapshot(model: keras.Model) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.weights]


def test_every_family_has_a_network_here() -> None:
    assert NETWORK_OF.keys() == FAMILIES.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_and_every_variable_is_used_once(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(NETWORK_OF[family], classes=2)
    assigned = []
    for variable in model.weights:
        monkeypatch.setattr(variable, "assign", lambda value, path=variable.path: assigned.append((path, value.shape)))
    tensors = {name: np.broadcast_to(1.0, shape) for name, shape in expected_tensors(model, family).items()}
    fill(tensors, model, family)
    assert sorted(assigned) == sorted((variable.path, tuple(variable.shape)) for variable in model.weights)


@pytest.mark.parametrize("family", FAMILIES)
def test_number_of_weights_is_the_original_s(family: str) -> None:
    model = network(NETWORK_OF[family], classes=2)
    shapes = expected_tensors(model, family)
    counted = sum(int(np.prod(shape)) for name, shape in shapes.items() if not name.endswith("/bn[2]"))
    assert counted == model.count_params()


def test_layouts_are_turned_around(resnet18: keras.Model) -> None:
    tensors = indexed(resnet18, "timm_legacy")
    fill(tensors, resnet18, "timm_legacy")
    stem, theirs = value(resnet18, "stem_conv", "kernel"), tensors["layer0.conv1.weight"]
    for out, channel, row, column in ((0, 0, 0, 1), (0, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 0), (63, 2, 6, 5)):
        assert stem[row, column, channel, out] == np.float32(theirs[out, channel, row, column])
    reduce, theirs = value(resnet18, "stage2_block1_se", "reduce_kernel"), tensors["layer1.0.se_module.fc1.weight"]
    assert reduce[5, 2] == np.float32(theirs[2, 5, 0, 0])
    logits, theirs = value(resnet18, "logits", "kernel"), tensors["last_linear.weight"]
    assert logits[511, 3] == np.float32(theirs[3, 511])


def test_square_kernels_are_turned_around(resnet18: keras.Model) -> None:
    """Where the shape tells nothing: 512 x 512 and 3 x 3."""
    tensors = indexed(resnet18, "timm_legacy")
    fill(tensors, resnet18, "timm_legacy")
    theirs = tensors["layer4.1.conv2.weight"]
    np.testing.assert_array_equal(
        value(resnet18, "stage5_block2_conv2", "kernel"), np.einsum("oihw->hwio", theirs).astype(np.float32)
    )


def test_norms_are_matched_by_meaning(resnet18: keras.Model) -> None:
    tensors = indexed(resnet18, "timm_legacy")
    fill(tensors, resnet18, "timm_legacy")
    pairs = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    for ours, theirs in pairs.items():
        expected = tensors[f"layer3.0.downsample.1.{theirs}"].astype(np.float32)
        np.testing.assert_array_equal(value(resnet18, "stage4_block1_proj_bn", ours), expected)


def test_caffe_norm_is_divided_by_its_count() -> None:
    model = network("se_resnext50", classes=2)
    tensors = indexed(model, "caffe_resnet")
    tensors["conv1/7x7_s2/bn[2]"] = np.array([4.0], "float32")
    tensors["conv2_1_3x3/bn[2]"] = np.array([0.0], "float32")
    fill(tensors, model, "caffe_resnet")
    for name, blob in (("moving_mean", 0), ("moving_variance", 1)):
        expected = (tensors[f"conv1/7x7_s2/bn[{blob}]"] / 4).astype(np.float32)
        np.testing.assert_array_equal(value(model, "stem_bn", name), expected)
    assert not value(model, "stage2_block1_bn2", "moving_mean").any()


def test_grouped_kernels_keep_their_groups() -> None:
    model = network("se_resnext50", classes=2)
    shapes = expected_tensors(model, "caffe_resnet")
    assert shapes["conv2_1_3x3[0]"] == (128, 4, 3, 3)


def test_counters_of_torch_are_ignored(resnet18: keras.Model) -> None:
    tensors = indexed(resnet18, "timm_legacy")
    tensors["layer0.bn1.num_batches_tracked"] = np.array(7)
    fill(tensors, resnet18, "timm_legacy")


def _without(tensors: Tensors) -> None:
    del tensors["layer4.1.se_module.fc2.bias"]


def _with_more(tensors: Tensors) -> None:
    tensors["layer4.1.se_module.fc3.bias"] = np.zeros(512)


def _of_another_shape(tensors: Tensors) -> None:
    tensors["last_linear.weight"] = tensors["last_linear.weight"].T


@pytest.mark.parametrize(
    ("spoil", "lines"),
    [
        (_without, ["- layer4.1.se_module.fc2.bias  (512,)  for stage5_block2_se/expand_bias"]),
        (_with_more, ["+ layer4.1.se_module.fc3.bias  (512,)"]),
        (
            _of_another_shape,
            ["- last_linear.weight  (1000, 512)  for logits/kernel", "+ last_linear.weight  (512, 1000)"],
        ),
    ],
)
def test_misfit_is_shown_and_leaves_the_model_untouched(
    spoil: Callable[[Tensors], None], lines: list[str], resnet18: keras.Model
) -> None:
    tensors = indexed(resnet18, "timm_legacy")
    fill({name: np.ones_like(tensor) for name, tensor in tensors.items()}, resnet18, "timm_legacy")
    spoil(tensors)
    with pytest.raises(WeightsMismatchError) as caught:
        fill(tensors, resnet18, "timm_legacy")
    message = str(caught.value)
    assert message.startswith("se_resnet18 <- timm_legacy: 1 of ")
    assert [line for line in lines if line not in message] == []
    assert all((weights == 1).all() for weights in snapshot(resnet18))


def test_checkpoint_of_another_family_is_named(resnet18: keras.Model) -> None:
    tensors = indexed(resnet18, "timm")
    with pytest.raises(WeightsMismatchError, match="look like those of the family 'timm'") as caught:
        fill(tensors, resnet18, "timm_legacy")
    assert "... and" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 50


def test_deeper_checkpoint_is_refused() -> None:
    tensors = indexed(network("se_resnet34", classes=2), "timm_legacy")
    with pytest.raises(WeightsMismatchError, match=r"in checkpoint, never used:\n  \+ layer1\.2\."):
        fill(tensors, network("se_resnet18", classes=2), "timm_legacy")


@pytest.mark.parametrize("options", [{"classes": 10}, {"include_top": False}])
def test_other_classifier_keeps_its_values(options: dict[str, object], resnet18: keras.Model) -> None:
    tensors = indexed(resnet18, "timm_legacy")
    model = network("se_resnet18", **options)
    before = [np.array(weight) for weight in model.layers[-1].weights]
    fill(tensors, model, "timm_legacy")
    for old, weight in zip(before, model.layers[-1].weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(weight))
    stem = np.einsum("oihw->hwio", tensors["layer0.conv1.weight"]).astype(np.float32)
    np.testing.assert_array_equal(value(model, "stem_conv", "kernel"), stem)
    del tensors["last_linear.bias"]
    with pytest.raises(WeightsMismatchError, match=r"last_linear\.bias"):
        fill(tensors, model, "timm_legacy")


def test_plain_network_takes_a_checkpoint_without_se() -> None:
    names = expected_tensors(network("se_resnet18", se=None), "timm")
    assert "layer1.0.bn2.weight" in names
    assert not [name for name in names if ".se." in name]


def test_network_that_the_family_does_not_know() -> None:
    model = se_keras.create_model("se_mobilenet", classes=2)
    with pytest.raises(ValueError, match="'timm' has no name for the layer 'stage1_block1_depthwise_conv'"):
        fill({}, model, "timm")


def test_unknown_family_suggests_another(resnet18: keras.Model) -> None:
    with pytest.raises(ValueError, match=r"Unknown family 'tim'\. Did you mean 'timm'"):
        fill({}, resnet18, "tim")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tensor: tensor * np.nan, r"must be finite; the tensor {name!r} of .* has 512 NaN or infinite values"),
        (lambda tensor: tensor.astype("int8"), r"must be floating-point numbers; the tensor {name!r} of .* is int8"),
    ],
)
def test_values_that_are_no_weights_are_refused_by_name(spoil, message, resnet18) -> None:
    tensors = indexed(resnet18, "timm_legacy")
    name = next(name for name, tensor in reversed(tensors.items()) if tensor.shape == (512,))
    before = snapshot(resnet18)
    with pytest.raises(ValueError, match=message.format(name=name).replace(".", r"\.").replace(r"\.*", ".*")):
        fill({**tensors, name: spoil(tensors[name])}, resnet18, "timm_legacy")
    for old, new in zip(before, snapshot(resnet18), strict=True):
        np.testing.assert_array_equal(old, new)
