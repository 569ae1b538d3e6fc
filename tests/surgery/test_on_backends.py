"""Inserting, collecting and pruning give on JAX and PyTorch what they give on TensorFlow: same files, same numbers."""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest
from keras import layers
from rewriting import randomized

from se_keras import SqueezeExcite
from se_keras.analysis import collect_gates
from se_keras.surgery import find_positions, prune_gates, pruning_curve


def conv_norm_relu(x, filters, kernel_size, name):
    x = layers.Conv2D(filters, kernel_size, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_bn")(x))


def residual(x, name):
    branch = conv_norm_relu(x, 8, 3, f"{name}1")
    branch = layers.Conv2D(x.shape[-1], 3, padding="same", name=f"{name}2_conv")(branch)
    branch = layers.BatchNormalization(name=f"{name}2_bn")(branch)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, branch]))


def inception(x, name):
    branches = [
        conv_norm_relu(x, 4, 1, f"{name}_1x1"),
        conv_norm_relu(conv_norm_relu(x, 4, 1, f"{name}_3x3_reduce"), 6, 3, f"{name}_3x3"),
        conv_norm_relu(layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x), 4, 1, f"{name}_pooled"),
    ]
    return layers.Concatenate(name=f"{name}_concat")(branches)


def inverted_residual(x, name):
    wide = conv_norm_relu(x, 24, 1, f"{name}_expand")
    wide = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(wide)
    wide = layers.ReLU(6.0, name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_bn")(wide))
    narrow = layers.Conv2D(x.shape[-1], 1, use_bias=False, name=f"{name}_project")(wide)
    return layers.Add(name=f"{name}_add")([x, layers.BatchNormalization(name=f"{name}_project_bn")(narrow)])


def units():
    """A residual unit, an Inception module and an inverted residual, one after the other."""
    inputs = keras.Input((8, 8, 3))
    x = conv_norm_relu(inputs, 8, 3, "stem")
    x = inverted_residual(inception(residual(x, "residual"), "inception"), "inverted")
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)), name="units")


def plain():
    inputs = keras.Input((8, 8, 3))
    x = conv_norm_relu(conv_norm_relu(inputs, 8, 3, "first"), 12, 3, "second")
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)), name="plain")


def excited():
    """A residual network with SE, whose first gates vary from image to image and whose second ones hardly do."""
    inputs = keras.Input((8, 8, 3))
    x = conv_norm_relu(inputs, 8, 3, "stem")
    for name, spread in (("first", 1.0), ("second", 1e-2)):
        kernel = keras.initializers.RandomNormal(0, spread, seed=1)
        branch = layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
        branch = layers.BatchNormalization(name=f"{name}_bn")(branch)
        branch = SqueezeExcite(2, kernel_initializer=kernel, name=f"{name}_se")(branch)
        x = layers.ReLU()(layers.Add()([x, branch]))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)), name="excited")


PLACES = {
    units: ["residual2_bn", "inception_concat", "inverted_relu"],
    plain: ["first_relu", "second_relu"],
}

NUMBERS = ("mean", "std", "quantiles", "total_mean", "total_std", "between_std", "low_share", "high_share")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the networks, images, and what TensorFlow, or the backend of this process, finds out of them."""
    folder = tmp_path_factory.mktemp("networks")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (12, 8, 8, 3)).astype("float32") * rng.uniform(0, 1, (12, 1, 1, 3)).astype("float32")
    labels = np.arange(12) % 3
    arrays = {"images": images, "labels": labels}
    for make, places in PLACES.items():
        model = randomized(make())
        assert [position.layer for position in find_positions(model)] == places
        arrays[f"{model.name}/places"] = np.array(places)
        arrays[f"{model.name}/answers"] = keras.ops.convert_to_numpy(model(images, training=False))
        model.save(folder / f"{model.name}.keras")
    model = randomized(excited())
    model.save(folder / "excited.keras")
    for block in collect_gates(model, images, labels=labels, bins=20).blocks:
        arrays |= {f"{block.name}/{name}": getattr(block, name) for name in NUMBERS}
    (report,) = pruning_curve(model, images, bounds=[0.01], labels=labels, timed_calls=0)
    small = prune_gates(model, images, bound=0.01)
    assert [change.action for change in report.changes] == ["kept", "folded"]
    arrays["changes"] = np.array([f"{change.action} {change.block}: {change.detail}" for change in report.changes])
    arrays["pruned"] = keras.ops.convert_to_numpy(small(images, training=False))
    arrays["deviations"] = np.array([change.deviation for change in report.changes])
    np.savez(folder / "expected.npz", **arrays)
    return folder


WORK = """
    import keras
    import numpy as np
    import warm_python
    from se_keras import SqueezeExcite, insert_squeeze_excite
    from se_keras.analysis import collect_gates
    from se_keras.surgery import prune_gates, pruning_curve

    warm_python.draw_with_numpy()
    folder = {folder!r}
    expected = dict(np.load(folder + "/expected.npz"))
    images, labels = expected["images"], expected["labels"]

    def load(name):
        return keras.models.load_model(f"{{folder}}/{{name}}.keras")

    def values(block):
        return [keras.ops.convert_to_numpy(variable).copy() for variable in block.trainable_variables]

    def answers(model):
        return keras.ops.convert_to_numpy(model(images, training=False))

    for name in ("units", "plain"):
        base = load(name)
        np.testing.assert_allclose(answers(base), expected[name + "/answers"], rtol=1e-4, atol=1e-3)
        model = insert_squeeze_excite(base)
        blocks = [layer for layer in model.layers if isinstance(layer, SqueezeExcite)]
        assert sorted(block.name for block in blocks) == sorted(f"{{place}}_se" for place in expected[name + "/places"])
        np.testing.assert_allclose(answers(model), answers(base), rtol=1e-5, atol=1e-5)
        model.compile(keras.optimizers.SGD(0.01), "mse")
        for step, moved in enumerate((slice(2, None), slice(None))):
            before = [values(block) for block in blocks]
            model.train_on_batch(images, np.eye(3, dtype="float32")[labels])
            for block, old in zip(blocks, before, strict=True):
                changes = [float(np.abs(a - b).max()) for a, b in zip(values(block), old, strict=True)]
                assert np.isfinite(changes).all() and min(changes[moved]) > 0, (name, step, block.name, changes)
        assert np.abs(answers(model) - answers(base)).max() > 1e-3

    model = load("excited")
    found = collect_gates(model, images, labels=labels, bins=20)
    assert [block.name for block in found.blocks] == ["first_se", "second_se"]
    for block in found.blocks:
        for number in {numbers}:
            np.testing.assert_allclose(
                getattr(block, number), expected[f"{{block.name}}/{{number}}"], rtol=1e-4, atol=1e-5, err_msg=number
            )
    report, nothing = pruning_curve(model, images, bounds=[0.01, 0.0], labels=labels, timed_calls=2)
    small = prune_gates(model, images, bound=0.01)
    assert [f"{{c.action}} {{c.block}}: {{c.detail}}" for c in report.changes] == expected["changes"].tolist()
    np.testing.assert_allclose([c.deviation for c in report.changes], expected["deviations"], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(answers(small), expected["pruned"], rtol=1e-4, atol=1e-3)
    same = prune_gates(model, images, bound=0.0)
    assert not nothing.pruned
    np.testing.assert_allclose(answers(same), answers(model), rtol=1e-5, atol=1e-5)
    print("the same on", keras.backend.backend())
"""


@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.torch)])
@pytest.mark.slow
def test_insertion_gates_and_pruning_are_the_same_on_every_backend(backend, made, run_warm):
    pytest.importorskip(backend)
    printed = run_warm(WORK.format(folder=os.fspath(made), numbers=NUMBERS), backend)
    assert f"the same on {backend}" in printed
