"""Every kind of block in LiteRT's GPU runtime: nothing left to the CPU, and the CPU's answers."""

import keras
import numpy as np
import pytest
from cases import ALL
from small_networks import shortened

from se_keras import export
from se_keras.export.inputs import random_images
from se_keras.export.process import Worker
from se_keras.export.tflite_runtime import TFLiteRunner
from se_keras.layers import GroupedConv2D
from se_keras.models.registry import NETWORKS

pytestmark = pytest.mark.usefixtures("gpu")

NAMES = (
    "se_resnet50",
    "se_resnext50",
    "senet154",
    "se_preresnet164",
    "se_mobilenet",
    "se_shufflenet",
    "se_bn_inception",
    "se_inception_v3",
    "regnety_002",
    "resnetrs50",
    "seresnextaa101d_32x8d",
    "mobilenetv3_small_050",
    "efficientnet_b0",
    "tf_efficientnetv2_b0",
    "lcnet_050",
    "semnasnet_075",
    "tinynet_e",
    "fbnetv3_b",
)


TESTED = ("se_resnext50", "se_bn_inception", "mobilenetv3_small_050")


def network(name):
    """A network of few blocks; 32 pixels, or its least."""
    keras.utils.set_random_seed(0)
    size = max(32, NETWORKS[name].min_size)
    return shortened(name, input_shape=(size, size, 3), classes=5, classifier_activation=None)


def difference_on_gpu(path, shape):
    """The greatest difference of GPU and CPU over the greatest answer."""
    images = random_images(shape, 2)
    expected = TFLiteRunner(path)(images)
    with Worker(path, runtime="tflite_gpu") as worker:
        (found,) = worker.run({"images": images}).values()
        return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES if ALL else TESTED)
def test_blocks_are_resident_and_right(name, tmp_path):
    model = network(name)
    assert difference_on_gpu(export.tflite(model, tmp_path / "model.tflite"), model.input_shape[1:]) < 1e-2


@pytest.mark.slow
def test_joined_groups_are_right(tmp_path):
    inputs = keras.Input((8, 8, 16))
    model = keras.Model(inputs, GroupedConv2D(16, 3, groups=8, padding="same")(inputs))
    assert difference_on_gpu(export.tflite(model, tmp_path / "model.tflite"), (8, 8, 16)) < 1e-3


@pytest.mark.slow
def test_pools_over_padding_are_right(tmp_path):
    inputs = keras.Input((12, 12, 8))
    model = keras.Model(inputs, keras.layers.AveragePooling2D(3, 2)(keras.layers.ZeroPadding2D(1)(inputs)))
    assert difference_on_gpu(export.tflite(model, tmp_path / "model.tflite"), (12, 12, 8)) < 1e-3


LOST = pytest.mark.xfail(reason="LiteRT 2.3 leaves the stride out, as `verify` warns; see docs/exports-on-a-gpu.md")


@pytest.mark.slow
@pytest.mark.parametrize("strides", [1, pytest.param(2, marks=LOST)])
def test_points_of_integers_are_right(strides, tmp_path, rng):
    inputs = keras.Input((16, 16, 8))
    model = keras.Model(inputs, keras.layers.Conv2D(8, 1, strides=strides)(inputs))
    data = rng.normal(0, 3, (120, 16, 16, 8))
    path = export.tflite(model, tmp_path / "model.tflite", dtype="int8", data=data)
    assert difference_on_gpu(path, (16, 16, 8)) < 0.03
