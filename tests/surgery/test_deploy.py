"""`deploy` computes the same, hoists where it may, and says what it left alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from cases import networks, smallest_size
from keras import layers
from rewriting import actions, deployment, randomized, relative_difference
from small_networks import answers, shortened

import se_keras
from se_keras import SEConfig, SqueezeExcite
from se_keras.surgery import Change, deploy
from se_keras.surgery.deployment import deployed as deployed_graph
from se_keras.surgery.graph import build_model, in_float32, read_graph
from se_keras.surgery.stage import staged

QUICK = ("se_resnet20",)
HOISTED = {  # blocks that follow a plain 1x1 convolution which does not narrow the map
    "se_resnet50": 16,
    "se_resnet101": 33,
    "se_resnet152": 50,
    "se_resnext50": 16,
    "se_resnext101": 33,
    "se_resnext101_64x4d": 33,
    "senet154": 50,
    "se_preresnet164": 54,
    "se_resnet18": 0,
    "se_resnet20": 0,
}


def bottlenecks(**options):
    """SE-ResNet-50 with two units in its first stage, one with a projection and one without, and one in each other."""
    return shortened("se_resnet50", first=2, input_shape=(64, 64, 3), **options)


@pytest.mark.parametrize("name", networks(quick=QUICK))
def test_every_network_computes_the_same(name):
    shape = (smallest_size(name), smallest_size(name), 3)
    model = randomized(se_keras.create_model(name, weights=None, input_shape=shape, classifier_activation=None))
    deployed, changes = deployment(model)
    assert relative_difference(model, deployed) < 1e-4
    found = actions(changes)
    reasons = {change.layer: change.detail for change in changes if change.action == "kept"}
    norms = [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    assert all(found[norm] == "folded" or reasons[norm] for norm in norms)
    blocks = [layer.name for layer in model.layers if isinstance(layer, SqueezeExcite)]
    hoisted = [block for block in blocks if found[block] == "hoisted"]
    assert len(hoisted) == HOISTED.get(name, len(hoisted))
    assert all(reasons[block] for block in blocks if block not in hoisted)


def test_deployed_model_is_smaller_and_shares_nothing():
    model = bottlenecks(classes=10)
    before = [value.copy() for value in model.get_weights()]
    deployed = deploy(model)
    assert deployed.count_params() < model.count_params()
    assert deployed.name == model.name
    assert not {id(layer) for layer in deployed.layers} & {id(layer) for layer in model.layers}
    for variable in deployed.weights:
        variable.assign(variable * 0)
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)


@pytest.mark.slow
def test_deployed_model_is_saved_and_loaded_with_keras_alone(tmp_path, run_python):
    model = randomized(bottlenecks(include_preprocessing=False))
    deployed = deploy(model)
    deployed.save(tmp_path / "deployed.keras")
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    np.savez(tmp_path / "arrays.npz", x=x, y=answers(deployed, x))
    run_python(
        f"""
        import sys
        sys.modules["se_keras"] = None
        import keras, numpy as np
        arrays = np.load(r"{tmp_path / "arrays.npz"}")
        model = keras.models.load_model(r"{tmp_path / "deployed.keras"}", safe_mode=True)
        np.testing.assert_allclose(model(arrays["x"]), arrays["y"], rtol=1e-5, atol=1e-7)
        """
    )


def test_endpoints_of_the_deployed_model_are_its_own():
    model = randomized(bottlenecks())
    deployed = deploy(model)
    endpoints = ["stage2", "stage5", "pooled"]
    ours, theirs = (se_keras.feature_extractor(m, endpoints) for m in (model, deployed))
    x = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    for name, value in answers(ours, x).items():
        other = answers(theirs, x)[name]
        assert np.abs(value - other).max() < 1e-4 * np.abs(value).max()


@pytest.mark.parametrize(
    ("se", "reason"),
    [
        (SEConfig(squeeze="max"), "does not commute"),
        pytest.param(SEConfig(squeeze="avgmax"), "does not commute", marks=pytest.mark.slow),
        (SEConfig(position="conv3x3"), "not a convolution"),
        pytest.param(SEConfig(position="pre"), "not a convolution", marks=pytest.mark.slow),
        pytest.param(SEConfig(position="post"), "not a convolution", marks=pytest.mark.slow),
    ],
)
def test_blocks_that_cannot_be_hoisted_are_left_alone(se, reason):
    model = randomized(bottlenecks(se=se))
    deployed, changes = deployment(model)
    blocks = {change.layer: change for change in changes if change.layer.endswith("_se")}
    assert len(blocks) == 5
    assert all(change.action == "kept" and reason in change.detail for change in blocks.values())
    assert sum(isinstance(layer, SqueezeExcite) for layer in deployed.layers) == 5
    assert relative_difference(model, deployed) < 1e-4


@pytest.mark.parametrize(
    "se",
    [
        SEConfig(gate_init="identity"),
        pytest.param(SEConfig(use_bias=False), marks=pytest.mark.slow),
        pytest.param(SEConfig(gate_activation="tanh"), marks=pytest.mark.slow),
        SEConfig(gate_activation="hard_sigmoid", activation="gelu"),
    ],
)
def test_every_gate_is_hoisted(se):
    model = randomized(bottlenecks(se=se))
    for layer in model.layers:
        if isinstance(layer, SqueezeExcite):  # the identity would hide a lost scale
            layer.expand_kernel.assign(layer.expand_kernel + 0.05)
    deployed, changes = deployment(model)
    assert list(actions(changes).values()).count("hoisted") == 5
    assert relative_difference(model, deployed) < 1e-4


def bottleneck_like(x, *, kernel_size=1, strides=1, filters=32, activation=None, between=None, squeeze="avg"):
    y = layers.Conv2D(filters, kernel_size, strides, padding="same", activation=activation, name="conv")(x)
    y = layers.BatchNormalization(name="bn")(y)
    if between is not None:
        y = between(y)
    return y, SqueezeExcite(4, squeeze=squeeze, name="se")(y)


def user_model(**options):
    images = keras.Input((9, 7, 8))
    _, y = bottleneck_like(images, **options)
    return randomized(keras.Model(images, y))


def test_pattern_in_a_user_model_is_hoisted():
    model = user_model()
    deployed, changes = deployment(model)
    assert actions(changes) == {"bn": "folded", "se": "hoisted"}
    assert {"se_squeeze", "se_reduce", "se_expand", "se"} <= {layer.name for layer in deployed.layers}
    assert relative_difference(model, deployed) < 1e-5


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kernel_size": 3}, "not a plain 1x1"),
        ({"strides": 2}, "not a plain 1x1"),
        ({"filters": 4}, "narrows"),
        ({"activation": "relu"}, "not a convolution"),  # the batch norm stays, and precedes the block
        ({"between": layers.ReLU()}, "not a convolution"),
    ],
)
def test_what_is_not_affine_or_not_cheaper_stays(options, reason):
    model = user_model(**options)
    deployed, changes = deployment(model)
    kept = {change.layer: change.detail for change in changes if change.action == "kept"}
    assert reason in kept["se"]
    assert relative_difference(model, deployed) < 1e-5


def test_branch_between_convolution_and_block_stops_the_hoist():
    images = keras.Input((9, 7, 8))
    wide, y = bottleneck_like(images)
    model = randomized(keras.Model(images, [layers.ReLU()(wide), y]))
    deployed, changes = deployment(model)
    kept = {change.layer: change.detail for change in changes if change.action == "kept"}
    assert "used elsewhere" in kept["se"]
    assert relative_difference(model, deployed) < 1e-5


def of_layers(x):
    gate = layers.Dense(2, activation="relu", name="se_reduce")(layers.GlobalAveragePooling1D(keepdims=True)(x))
    return layers.Multiply(name="se")([x, layers.Dense(x.shape[-1], activation="sigmoid", name="se_expand")(gate)])


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
@pytest.mark.parametrize("block", [SqueezeExcite(4, name="se"), of_layers], ids=["layer", "layers"])
def test_mask_that_the_convolution_drops_stops_the_hoist(block):
    inputs = keras.Input((6,))
    x = layers.Embedding(20, 8, mask_zero=True)(inputs)
    x = block(layers.Conv1D(16, 1)(x))
    model = randomized(keras.Model(inputs, layers.GlobalAveragePooling1D()(x)))
    deployed, changes = deployment(model)
    (change,) = changes
    assert (change.layer, change.action) == ("se", "kept")
    assert "comes with a mask" in change.detail
    tokens = np.array([[3, 4, 5, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    np.testing.assert_allclose(model(tokens), deployed(tokens), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("what", ["conv", "se"])
def test_shared_layers_stop_the_hoist(what):
    images = keras.Input((9, 7, 8))
    conv, se = layers.Conv2D(32, 1), SqueezeExcite(4)
    convs = [conv, conv] if what == "conv" else [layers.Conv2D(32, 1), layers.Conv2D(32, 1)]
    blocks = [se, se] if what == "se" else [SqueezeExcite(4), SqueezeExcite(4)]
    outputs = [block(one(images)) for one, block in zip(convs, blocks, strict=True)]
    model = randomized(keras.Model(images, outputs))
    deployed, changes = deployment(model)
    kept = [change for change in changes if change.action == "kept"]
    assert len(kept) == 2
    assert all("shared" in change.detail for change in kept)
    assert relative_difference(model, deployed) < 1e-5


@pytest.mark.parametrize(("rank", "conv"), [(3, layers.Conv1D), (5, layers.Conv3D)])
def test_sequences_and_volumes(rank, conv):
    inputs = keras.Input((*(6, 5, 4)[: rank - 2], 8))
    y = layers.BatchNormalization()(conv(32, 1, use_bias=False)(inputs))
    model = randomized(keras.Model(inputs, SqueezeExcite(4, name="se")(y)))
    deployed, changes = deployment(model)
    assert actions(changes)["se"] == "hoisted"
    assert relative_difference(model, deployed) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_policies(policy):
    keras.config.set_dtype_policy(policy)
    model = randomized(bottlenecks())
    deployed, changes = deployment(model)
    assert list(actions(changes).values()).count("hoisted") == 5
    assert deployed.get_layer("stage2_block1_conv1").compute_dtype == policy.removeprefix("mixed_")
    single = build_model(deployed_graph(in_float32(read_graph(model)))[0])
    assert single.get_layer("stage2_block1_conv1").compute_dtype == "float32"
    # Half precision itself is this far off.
    bound = 0.05 if policy == "mixed_float16" else 0.4
    assert relative_difference(single, deployed) < bound


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends(backend, run_warm):
    pytest.importorskip(backend)
    run_warm(
        """
        import keras
        from keras import layers
        from rewriting import actions, deployment, randomized, relative_difference
        from se_keras import SqueezeExcite
        from se_keras.layers import GroupedConv2D
        from se_keras.surgery import deploy
        from se_keras.surgery.graph import build_model, read_graph
        from se_keras.surgery.stage import staged

        images = keras.Input((16, 16, 8))
        x = layers.BatchNormalization(name="bn1")(GroupedConv2D(8, 3, groups=4, use_bias=False)(images))
        x = layers.BatchNormalization(name="bn2")(layers.Conv2D(32, 1, use_bias=False)(layers.ReLU()(x)))
        model = randomized(keras.Model(images, SqueezeExcite(4, name="se")(x)))
        deployed, changes = deployment(model)
        assert actions(changes) == {"bn1": "folded", "bn2": "folded", "se": "hoisted"}
        assert relative_difference(model, deployed) < 1e-5
        assert relative_difference(model, build_model(staged(read_graph(deployed)))) < 1e-5
        """,
        backend,
    )


@pytest.mark.parametrize("size", [(56, 56), (28, 28), (14, 15), (24, 56)])
def test_staged_squeezes_compute_the_same(size):
    images = keras.Input((*size, 8))
    y = SqueezeExcite(4, name="se")(layers.Conv2D(16, 3, padding="same", activation="relu")(images))
    model = randomized(keras.Model(images, layers.GlobalAveragePooling2D(name="pooled")(y)))
    for names in (None, ["se"], ["pooled"]):
        split = build_model(staged(read_graph(model), names))
        pools = [layer.name for layer in split.layers if isinstance(layer, layers.AveragePooling2D)]
        assert {pool.split("_stage")[0] for pool in pools} == {
            None: {"se_squeeze", "pooled"},
            "se": {"se_squeeze"},
            "pooled": {"pooled"},
        }[names if names is None else names[0]]
        assert relative_difference(model, split) < 1e-5


def test_staged_squeeze_stays_finite_where_half_precision_overflows():
    images = keras.Input((112, 112, 1), dtype="float16")
    plain = keras.Model(images, layers.GlobalAveragePooling2D(dtype="float16")(images))
    split = build_model(staged(read_graph(plain)))
    values = [layer for layer in split.layers if isinstance(layer, layers.AveragePooling2D)]
    x = np.full((1, 112, 112, 1), 1000.0, "float16")
    assert 1000.0 * 112 * 112 > 65504  # what a GPU that adds in float16 has to hold
    assert all(1000.0 * np.prod(layer.pool_size) < 65504 for layer in values)
    assert float(split(x)[0, 0]) == pytest.approx(1000.0, rel=0.01)


def test_changes_read_as_sentences():
    assert str(Change("bn1", "folded", "conv1")) == "folded bn1: conv1"
    assert str(Change("dropout", "removed")) == "removed dropout"


def test_subclassed_models_are_refused():
    class Own(keras.Model):
        pass

    with pytest.raises(ValueError, match=r"Only functional models.*received Own"):
        deploy(Own())
    with pytest.raises(ValueError, match="Only functional models"):
        deploy(keras.Sequential([layers.Dense(3)]))
