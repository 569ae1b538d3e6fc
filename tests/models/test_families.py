"""The newer networks, one of each kind in small: deployed, tapped, trained, looked into, pruned, and exported."""

from __future__ import annotations

import contextlib
import math

import keras
import numpy as np
import pytest
from cases import ALL
from keras import layers, ops
from rewriting import actions, deployment, relative_difference
from small_networks import answers, shortened

from se_keras import SqueezeExcite, export, feature_extractor
from se_keras.analysis import collect_gates
from se_keras.export.inputs import random_images
from se_keras.surgery import prune_gates

SIZE = 64
HOISTED = {"resnetrs50": 4, "seresnextaa101d_32x8d": 4}
"""Blocks that follow a plain 1x1 convolution. In RegNetY and inverted blocks, an activation lies between."""

FAMILIES = (
    "regnety_002",
    "resnetrs50",
    "seresnextaa101d_32x8d",
    "mobilenetv3_small_050",
    "mobilenetv3_small_075",
    "efficientnet_b0",
    "tf_efficientnet_b0",
    "tf_efficientnetv2_b0",
    "lcnet_050",
    "semnasnet_075",
    "tinynet_e",
    "fbnetv3_b",
)
EXAMPLES = ("mobilenetv3_small_050",)
OTHERS_LIKE = ("mobilenetv3_small_075", "tf_efficientnet_b0", "semnasnet_075", "tinynet_e")
"""Families whose blocks differ from those of an example in numbers or padding only: for `make test-all`."""
EXPORTED = (*EXAMPLES, "regnety_002")
"""Hard swish with hard-sigmoid gates, and ReLU with sigmoid gates; `make test-all` exports every family."""
TESTED = [name for name in FAMILIES if ALL or name not in OTHERS_LIKE]


@pytest.fixture(scope="module")
def photos():
    return random_images((SIZE, SIZE, 3), 128)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=() if name in EXAMPLES else pytest.mark.slow) for name in TESTED]
)
def family(request):
    return request.param


ENDS_OF_BRANCHES = ("_bn3", "_project_bn")


@pytest.fixture(scope="module")
def model(family, photos):
    """A network of few blocks, with statistics from noise, so that maps neither fade nor grow, and gates vary.

    Residual branches are half as large as their shortcuts, and the other normalizations shift most values above zero:
    otherwise rounding grows from block to block.
    """
    keras.utils.set_random_seed(0)
    model = shortened(family, input_shape=(SIZE, SIZE, 3), classes=5, classifier_activation=None)
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.name.endswith(ENDS_OF_BRANCHES):
            norm.gamma.assign(ops.full_like(norm.gamma, 0.5))
        else:
            norm.beta.assign(ops.ones_like(norm.beta))
    model(photos[:16], training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


def blocks_of(model):
    return [layer for layer in model.layers if isinstance(layer, SqueezeExcite)]


@contextlib.contextmanager
def restored(model):
    """Gives the shared network its weights back."""
    weights = model.get_weights()
    yield
    model.set_weights(weights)


def test_deployed_form_computes_the_same(model, family):
    deployed, changes = deployment(model)
    assert relative_difference(model, deployed) < 1e-4
    found = actions(changes)
    names = [block.name for block in blocks_of(model)]
    assert names
    assert sum(found[name] == "hoisted" for name in names) == HOISTED.get(family, 0)
    reasons = [change.detail for change in changes if change.layer in names and change.action == "kept"]
    assert all("(Activation) precedes it, not a convolution" in reason for reason in reasons)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in deployed.layers)


def test_features_have_strides_4_to_32(model, photos):
    features = feature_extractor(model, ["stem", "stage2", "stage3", "stage4", "stage5", "logits"])
    found = answers(features, photos[:2])
    sizes = {name: found[name].shape[1:3] for name in ("stem", "stage2", "stage3", "stage4", "stage5")}
    assert sizes == {f"stage{number}": (SIZE // 2**number,) * 2 for number in range(2, 6)} | {"stem": (SIZE // 2,) * 2}
    np.testing.assert_array_equal(found["logits"], answers(model, photos[:2]))
    assert list(feature_extractor(model).output) == ["stage2", "stage3", "stage4", "stage5"]


LINEAR_ENDS = ("_project_bn/beta", "_pointwise_bn/beta", "_reduce_bn/beta")
"""Shifts that only 1x1 convolutions with batch normalization read, which takes any shift away: their gradient is 0."""


def test_one_training_step_changes_every_variable(model, photos):
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True
    )
    with restored(model):
        before = {variable.path: ops.convert_to_numpy(variable).copy() for variable in model.variables}
        assert np.isfinite(model.train_on_batch(photos[16:24], np.arange(8) % 5))
        after = {variable.path: ops.convert_to_numpy(variable) for variable in model.variables}
    unchanged = [path for path, value in before.items() if np.array_equal(value, after[path])]
    assert not [path for path in unchanged if not path.endswith(LINEAR_ENDS)]
    assert any("moving_variance" in path for path in before)
    assert all(np.isfinite(value).all() for value in after.values())


def test_gates_are_those_by_hand(model, photos):
    found = collect_gates(model, photos[:4], verbose=0)
    blocks = blocks_of(model)
    assert [block.name for block in found.blocks] == [block.name for block in blocks]
    inputs = keras.Model(model.inputs[0], {block.name: block.input for block in blocks})
    maps = answers(inputs, photos[:4])
    for block, layer in zip(found.blocks, blocks, strict=True):
        values = ops.convert_to_numpy(layer.gates(maps[layer.name])).reshape(4, -1)
        np.testing.assert_allclose(block.total_mean, values.mean(0), atol=1e-4)
        np.testing.assert_allclose(block.total_std, values.std(0), atol=1e-4)
        assert 0 <= values.min() <= values.max() <= 1
    assert max(block.total_std.max() for block in found.blocks) > 0.01


def test_constant_gates_are_pruned_exactly(model, photos):
    rng = np.random.default_rng(3)
    with restored(model):
        for block in blocks_of(model):
            block.expand_kernel.assign(ops.zeros_like(block.expand_kernel))
            block.expand_bias.assign(rng.normal(0, 2, block.expand_bias.shape))
        small = prune_gates(model, photos[:4], bound=math.inf, verbose=0)
        assert blocks_of(small) == []
        assert relative_difference(model, small) < 1e-4


def saved_model(model, folder, photos):
    return export.saved_model(model, folder / "saved_model", verbose=0)


def onnx(model, folder, photos):
    return export.onnx(model, folder / "model.onnx", verbose=0)


def fp32(model, folder, photos):
    return export.tflite(model, folder / "model.tflite", verbose=0)


def int8(model, folder, photos):
    return export.tflite(model, folder / "int8.tflite", dtype="int8", data=photos, verbose=0)


INT8 = export.Limits(relative_error=0.3, top1_agreement=0.8, accuracy_drop=1.0)
"""Untrained networks lose more than trained ones: the limits tell a rounded network from a wrong one."""


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES if ALL else EXPORTED, indirect=True, scope="module")
@pytest.mark.parametrize("write", [saved_model, onnx, fp32, int8])
def test_exports_are_verified(model, family, write, photos, tmp_path):
    path, limits = write(model, tmp_path, photos), INT8 if write is int8 else None
    report = export.verify(path, model, data=photos, limits=limits, gpu_images=0, repeats=0, verbose=0)
    assert report.passed, str(report)
