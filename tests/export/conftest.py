"""What the tests of exports share."""

import keras
import pytest
from small_networks import shortened

from se_keras import export
from se_keras.export.process import RuntimeRefusedError, Worker, is_missing_driver


@pytest.fixture(scope="session")
def model():
    """SE-ResNet-20 with one unit a stage: three SE blocks, on maps of 32, 16 and 8."""
    keras.utils.set_random_seed(0)
    return shortened("se_resnet20")


@pytest.fixture(scope="session")
def grouped():
    """SE-ResNeXt with one unit a stage: every kind of layer, little to convert."""
    keras.utils.set_random_seed(0)
    return shortened("se_resnext50", input_shape=(64, 64, 3), classes=5)


@pytest.fixture
def tiny():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(inputs)), name="tiny")


@pytest.fixture(scope="session")
def gpu(tmp_path_factory):
    """Skips where LiteRT finds no GPU, nor the driver of Chromium that stands in for one."""
    path = tmp_path_factory.mktemp("gpu") / "tiny.tflite"
    inputs = keras.Input((8, 8, 3))
    export.tflite(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)), path)
    try:
        Worker(path, runtime="tflite_gpu").close()
    except RuntimeRefusedError as refusal:
        if is_missing_driver(refusal):
            pytest.skip(f"no GPU driver: apt-get install libvulkan1 chromium ({str(refusal).splitlines()[0]})")
        raise


@pytest.fixture
def unsupported():
    """A model with a layer, "odd", whose operation no other program has."""

    class Odd(keras.layers.Layer):
        def call(self, inputs):
            return keras.ops.erfinv(inputs / 300)

    images = keras.Input((8, 8, 1))
    return keras.Model(images, Odd(name="odd")(images))
