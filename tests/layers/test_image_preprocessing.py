"""ImagePreprocessing puts pixels on exactly the scale that is worked out by hand here."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from se_keras.layers import ImagePreprocessing

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# (pixel / 255 - mean) / std for R, G and B, by hand: e.g. R at 0 is -0.485 / 0.229.
BY_HAND = {
    0: (-2.117904, -2.035714, -1.804444),
    128: (0.074065, 0.205182, 0.426492),
    255: (2.248908, 2.428571, 2.640000),
}


@pytest.mark.parametrize("pixel", BY_HAND)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_pixel_equals_hand_computed_number(pixel, dtype, data_format):
    shape = (1, 2, 2, 3) if data_format == "channels_last" else (1, 3, 2, 2)
    outputs = ImagePreprocessing(**IMAGENET, data_format=data_format)(np.full(shape, pixel, dtype))
    outputs = ops.convert_to_numpy(outputs)
    outputs = outputs if data_format == "channels_last" else np.moveaxis(outputs, 1, -1)
    assert outputs.dtype == "float32"
    np.testing.assert_allclose(outputs, np.broadcast_to(BY_HAND[pixel], (1, 2, 2, 3)), atol=2e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_half_precision_policy_does_not_round_pixels(policy, dtype):
    keras.config.set_dtype_policy(policy)
    pixels = np.arange(255, dtype=dtype).reshape(1, 1, 85, 3)
    if dtype == "float32":  # as resizing leaves them: bfloat16 holds whole numbers up to 256, and no more
        pixels = pixels + np.float32(0.3)
    layer = ImagePreprocessing(mean=(0, 0, 0), std=(1, 1, 1))
    outputs = layer(pixels)
    symbolic = layer(keras.Input(batch_shape=pixels.shape, dtype=dtype))
    assert keras.backend.standardize_dtype(outputs.dtype) == symbolic.dtype == "float32"
    assert symbolic.shape == pixels.shape
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), pixels / 255.0, atol=1e-7)


def test_uint8_photo_goes_through_a_half_precision_model_unrounded(rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, ImagePreprocessing(**IMAGENET)(inputs))
    pixels = rng.integers(0, 256, size=(2, 4, 4, 3)).astype("uint8")
    expected = (pixels / 255.0 - IMAGENET["mean"]) / IMAGENET["std"]
    np.testing.assert_allclose(model.predict(pixels, verbose=0), expected, atol=2e-6)


def test_saved_layer_keeps_every_argument(tmp_path):
    options = {"size": 64, "crop": 0.9, "interpolation": "bicubic", "data_format": "channels_last", **IMAGENET}
    layer = ImagePreprocessing(**options)
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    assert loaded.get_config() == layer.get_config()
    assert {name: getattr(loaded, name) for name in options} == options


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5, 0.5), (0.5, 0.5, 0.5)), ((0.5,) * 3, (0.5, 0, 0.5)), ((0.5,) * 3, (-1, 1, 1))]
)
def test_bad_mean_or_std_is_refused(mean, std):
    with pytest.raises(ValueError, match=r"one number per channel, `std` above 0; received mean=\(.*\), std=\("):
        ImagePreprocessing(mean=mean, std=std)
