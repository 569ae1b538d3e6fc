"""The ranges found for int8 files: those of TensorFlow's own calibration."""

import keras
import numpy as np
import pytest

from se_keras import SqueezeExcite
from se_keras.export import tflite_ranges as module
from se_keras.export.calibration import CALIBRATION_IMAGES, Calibration, calibrate
from se_keras.export.model_ends import inputs_of
from se_keras.export.tensorflow_internals import interpreter_module
from se_keras.export.tflite_file import read_model
from se_keras.export.tflite_ranges import with_ranges
from se_keras.export.to_tflite import converted, write_archive


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = keras.layers.Add()([x, SqueezeExcite(reduction=4, name="gated")(keras.layers.Conv2D(16, 1)(x))])
    x = keras.layers.Dense(4, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


@pytest.fixture(scope="module")
def calibration():
    return Calibration({"images": np.random.default_rng(0).uniform(0, 255, (24, 16, 16, 3)).astype("float32")})


def by_the_converter_alone(model, images, folder):
    import tensorflow as tf

    write_archive(model, folder, batch=1)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    return converter.convert()


def steps(content):
    """Scales and zero points by tensor."""
    interpreter = interpreter_module().Interpreter(model_content=content)
    return {entry["name"]: entry["quantization"] for entry in interpreter.get_tensor_details() if entry["name"]}


def scale_of(steps_by_name, *parts):
    """Scale of the one tensor with these in its name."""
    (found,) = {scale for name, (scale, _) in steps_by_name.items() if all(part in name for part in parts)}
    return found


@pytest.mark.slow
def test_scales_are_the_converters_or_finer(model, calibration, tmp_path):
    expected = steps(by_the_converter_alone(model, calibration.feed["images"], tmp_path))
    found = steps(converted(model, "int8", calibration.batches(1)))
    assert found.keys() == expected.keys()
    same = [name for name in found if np.allclose(found[name], expected[name], rtol=1e-5)]
    assert sum(found[name][0] > 0 for name in same) > 5
    assert all(found[name][0] < expected[name][0] for name in found.keys() - set(same))


def test_a_products_range_is_its_own_and_not_that_of_the_sum_behind_it(model, calibration):
    """TensorFlow 2.21's calibration reads the product of gates and map after the sum has been written over it."""
    product = keras.Model(model.inputs, model.get_layer("gated").output).predict(calibration.feed["images"], verbose=0)
    own = (product.max() - product.min()) / 255
    found = steps(converted(model, "int8", calibration.batches(1)))
    assert 0.75 * own < scale_of(found, "gated", "/mul") < 1.001 * own


@pytest.mark.slow
def test_every_image_counts_whatever_the_batch(model, calibration):
    """The converter's own pass sees one batch; an outlier in the last image must widen the ranges all the same."""
    images = calibration.feed["images"].copy()
    images[-1] *= 40
    wide = steps(converted(model, "int8", Calibration({"images": images}).batches(4), batch_size=4))
    narrow = steps(converted(model, "int8", calibration.batches(4), batch_size=4))
    entrance = max(narrow, key=lambda name: narrow[name][0])
    assert wide[entrance][0] > 30 * narrow[entrance][0]


@pytest.mark.slow
def test_a_batch_may_be_larger_than_the_calibration(model, calibration):
    large, small = (steps(converted(model, "int8", calibration.batches(size), batch_size=size)) for size in (32, 1))
    entrance = max(small, key=lambda name: small[name][0])
    assert large[entrance] == pytest.approx(small[entrance])


@pytest.mark.slow
def test_ranges_found_in_parts_are_the_same(model, calibration, monkeypatch):
    whole = converted(model, "int8", calibration.batches(1))
    monkeypatch.setattr(module, "MOST_BYTES", 20_000)  # a map of this model has 16,384
    assert converted(model, "int8", calibration.batches(1)) == whole


def test_values_that_are_not_finite_are_named(model, calibration):
    broken = keras.models.clone_model(model)
    broken.set_weights(model.get_weights())
    broken.layers[-1].bias.assign([np.nan] * 4)
    with pytest.raises(ValueError, match=r"needs finite activations.*Check the model's weights"):
        converted(broken, "int8", calibration.batches(1))


def test_every_tensor_that_is_not_constant_gets_a_range(model, calibration):
    content = with_ranges(converted(model, "fp32"), calibration.batches(1)[:2]).content(0)
    graph = read_model(content).subgraphs[0]
    computed = {index for operator in graph.operators for index in operator.outputs} | set(graph.inputs)
    ranged = {place for place, tensor in enumerate(graph.tensors) if tensor.quantization and tensor.quantization.max}
    assert ranged == computed


def test_equal_images_are_left_out_of_many(model):
    images = np.random.default_rng(1).uniform(0, 255, (128, 16, 16, 3)).astype("float32")
    images[1:28] = images[0]
    feed = calibrate(images, inputs_of(model), preprocessing=None).feed
    (found,) = feed.values()
    assert len(found) == len(np.unique(found, axis=0)) == CALIBRATION_IMAGES
    assert {image.tobytes() for image in found} <= {image.tobytes() for image in images}


def test_the_last_batch_is_filled_up(calibration):
    (images,) = calibration.feed.values()
    batches = [batch["images"] for batch in calibration.batches(10)]
    assert [len(batch) for batch in batches] == [10, 10, 10]
    np.testing.assert_array_equal(np.concatenate(batches)[:24], images)
    np.testing.assert_array_equal(batches[-1][4:], np.repeat(images[-1:], 6, axis=0))


@pytest.mark.parametrize("part", ["reduce", "map"])
def test_a_unit_that_is_always_0_is_quantized(part, calibration):
    """LiteRT aborts the whole process on a step of 0, as of an SE block whose ReLU is 0 for every image."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="map")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(SqueezeExcite(reduction=4, name="reduce")(x))
    model = keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))
    layer = model.get_layer(part)
    bias = layer.reduce_bias if part == "reduce" else layer.bias
    bias.assign(np.full(bias.shape, -100.0))
    assert converted(model, "int8", calibration.batches(1))
