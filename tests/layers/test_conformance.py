"""Every layer passes the checks that Keras runs on its own layers, on TensorFlow and JAX."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.src.testing import TestCase

import se_keras.layers
from se_keras.layers import BatchNormalization, ChannelShuffle, GroupedConv2D, ImagePreprocessing, SqueezeExcite

pytestmark = pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")  # by Keras' own check, with a generator

SERIES, IMAGES, VOLUMES = (2, 5, 8), (2, 5, 4, 8), (2, 3, 4, 5, 8)
FIRST = (2, 8, 5, 4)
STATELESS = {"assert_built_after_instantiation": True}


@keras.saving.register_keras_serializable("tests")
def halved(x):
    return ops.sigmoid(x) / 2


def squeeze_excite(shape=IMAGES, losses=0, **arguments):
    """A row of the table: the class, its arguments, the shape of its inputs, and what else Keras' check is told."""
    expected = {
        "expected_output_shape": shape,
        "expected_num_trainable_weights": 4 if arguments.get("use_bias", True) else 2,
        "expected_num_non_trainable_variables": 0,
        "expected_num_losses": losses,
        "supports_masking": True,
    }
    return SqueezeExcite, {"reduction": 4, **arguments}, shape, expected


def masked(row, mask_shape):
    layer_class, arguments, shape, expected = row
    mask = np.arange(math.prod(mask_shape)).reshape(mask_shape) % 3 > 0
    return layer_class, arguments, shape, expected | {"call_kwargs": {"mask": mask}}


def batch_normalization(shape=IMAGES, **arguments):
    expected = {"expected_output_shape": shape, "expected_num_non_trainable_weights": 2, "supports_masking": True}
    return BatchNormalization, arguments, shape, expected


def grouped_conv(output_shape, shape=IMAGES, **arguments):
    arguments = {"filters": 8, "kernel_size": 3, **arguments}
    return GroupedConv2D, arguments, shape, {"expected_output_shape": output_shape, "supports_masking": False}


def channel_shuffle(shape=IMAGES, **arguments):
    expected = {"expected_output_shape": shape, "supports_masking": True, "expected_num_trainable_weights": 0}
    return ChannelShuffle, arguments, shape, expected | STATELESS


def image_preprocessing(dtype="float32", shape=(2, 5, 4, 3), **arguments):
    expected = {"expected_output_shape": shape, "expected_output_dtype": "float32", "supports_masking": True}
    scale = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return ImagePreprocessing, scale | arguments, shape, expected | STATELESS | {"input_dtype": dtype}


GATES = {
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "another_name": "softsign",
    "keras_function": keras.activations.sigmoid,
    "another_keras_function": keras.activations.softplus,
    "keras_operation": ops.sigmoid,
    "another_keras_operation": ops.sparse_sigmoid,
    "registered_function": halved,
    "layer": layers.Activation("sigmoid"),
}

CASES = {
    **{f"gate_{name}": squeeze_excite(gate_activation=gate) for name, gate in GATES.items()},
    "gate_function_identity": squeeze_excite(gate_activation=ops.hard_sigmoid, gate_init="identity"),
    "activation_none": squeeze_excite(activation=None),
    "activation_function": squeeze_excite(activation=keras.activations.gelu),
    "activation_layer": squeeze_excite(activation=layers.ReLU(6.0)),
    "squeeze_max": squeeze_excite(squeeze="max"),
    "squeeze_avgmax": squeeze_excite(squeeze="avgmax", gate_init="identity"),
    "squeeze_channels": squeeze_excite(squeeze_channels=3, use_bias=False),
    "regularized": squeeze_excite(losses=2, kernel_regularizer="l2", kernel_initializer="ones"),
    "series": squeeze_excite(SERIES),
    "volumes": squeeze_excite(VOLUMES),
    "excite_channels_first": squeeze_excite(FIRST, data_format="channels_first"),
    "masked_series": masked(squeeze_excite(SERIES, squeeze="avgmax"), (2, 5)),
    "masked_positions": masked(squeeze_excite(squeeze="max"), (2, 5, 4)),
    "norm": batch_normalization(),
    "norm_series": batch_normalization(SERIES),
    "norm_masked": masked(batch_normalization(SERIES), (2, 5)),
    "norm_plain": batch_normalization(center=False, momentum=0.9),
    "groups_1": grouped_conv((2, 3, 2, 8), groups=1),
    "groups_2": grouped_conv((2, 3, 2, 8), strides=2, groups=2, padding="same"),
    "groups_8": grouped_conv((2, 5, 4, 8), groups=8, padding="same", activation="relu", use_bias=False),
    "shuffle": channel_shuffle(groups=2),
    "shuffle_channels_first": channel_shuffle(FIRST, groups=4, data_format="channels_first"),
    "pixels": image_preprocessing(),
    "pixels_uint8": image_preprocessing("uint8", size=[32, 64], class_names=["cat"], classifier="head"),
    "pixels_channels_first": image_preprocessing(shape=(2, 3, 5, 4), data_format="channels_first"),
}


def check(name):
    layer_class, arguments, shape, expected = CASES[name]
    is_trained = "assert_built_after_instantiation" not in expected and not name.startswith("gate_another")
    TestCase().run_layer_test(layer_class, arguments, input_shape=shape, run_training_check=is_trained, **expected)


@pytest.mark.parametrize("name", CASES)
def test_a_layer_passes_the_check_of_keras(name):
    check(name)


def test_every_layer_has_a_case():
    assert {case[0].__name__ for case in CASES.values()} == set(se_keras.layers.__all__)


@pytest.mark.slow
def test_a_layer_passes_the_check_of_keras_on_jax(run_warm):
    pytest.importorskip("jax")
    code = """
        import sys
        sys.path.insert(0, "tests/layers")
        import test_conformance
        for name in test_conformance.CASES:
            test_conformance.check(name)
        print("passed:", len(test_conformance.CASES))
    """
    assert f"passed: {len(CASES)}" in run_warm(code, backend="jax")
