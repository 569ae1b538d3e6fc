"""TFLite files in every precision, reloaded in their own runtime, against the Keras model."""

import functools
import json
import os

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from small_networks import answers, images_for, shortened

import se_keras
from se_keras import export
from se_keras.export.calibration import calibrate
from se_keras.export.gpu_form import gpu_form, joined_groups
from se_keras.export.inspect_tflite import read_tflite
from se_keras.export.metadata import read_metadata
from se_keras.export.model_ends import inputs_of
from se_keras.export.tflite_runtime import TFLiteRunner
from se_keras.preprocessing import stored_preprocessing
from se_keras.surgery.graph import build_model, read_graph
from se_keras.training.sources import load_sample

LABELS = [f"class {number}" for number in range(10)]


def ready(runner):
    return [operation["op_name"] for operation in runner.interpreter._get_ops_details()]


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(0)
    return shortened("se_resnet20")


@pytest.fixture(scope="module")
def trained():
    """One SE block a stage and three epochs: enough for gates and classes to differ."""
    keras.utils.set_random_seed(0)
    model = shortened("se_resnet20", se=se_keras.SEConfig(reduction=4))
    sample = load_sample()
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(sample.x_train, sample.y_train, batch_size=64, epochs=3, verbose=0)
    return model


@pytest.fixture(scope="module")
def fp32(request, tmp_path_factory):
    """`fp32(name)`: the file of the fixture of this name in single precision, written once."""
    folder = tmp_path_factory.mktemp("fp32")

    @functools.cache
    def file(name):
        return export.tflite(request.getfixturevalue(name), folder / f"{name}.tflite")

    return file


@pytest.mark.parametrize("name", ["small", pytest.param("grouped", marks=pytest.mark.slow)])
def test_fp32_equals_keras(name, fp32, request):
    model = request.getfixturevalue(name)
    runner = TFLiteRunner(fp32(name))
    images = images_for(model)
    np.testing.assert_allclose(runner(images), answers(model, images), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_one_native_operation_a_convolution_and_nothing_else(grouped, fp32):
    runner = TFLiteRunner(fp32("grouped"))
    operations = ready(runner)
    convolutions = [layer for layer in grouped.layers if type(layer).__name__ in ("Conv2D", "GroupedConv2D")]
    excitations = [layer for layer in grouped.layers if isinstance(layer, se_keras.SqueezeExcite)]
    assert operations.count("CONV_2D") == len(convolutions) + 2 * len(excitations)
    assert operations.count("MEAN") == len(excitations) + 1
    assert operations.count("RESHAPE") == 2  # around the normalization of images, by rows
    assert not {"SPLIT", "SPLIT_V", "BROADCAST_TO", "TRANSPOSE"} & set(operations)
    shapes = [tensor["shape_signature"] for tensor in runner.interpreter.get_tensor_details()]
    assert max(len(shape) for shape in shapes) <= 4
    assert all((shape > 0).all() for shape in shapes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "difference", "share"),
    [
        pytest.param("fp16", 0.01, 0.55, marks=pytest.mark.slow),
        pytest.param("dynamic", 0.1, 0.6, marks=pytest.mark.slow),
        pytest.param("int16x8", 0.05, 0.6, marks=pytest.mark.slow),
        ("int8", 0.15, 0.6),
    ],
)
def test_smaller_files_agree(dtype, difference, share, trained, fp32, tmp_path):
    sample = load_sample()
    full = fp32("trained")
    data = sample.x_train[:120] if "int" in dtype else None
    path = export.tflite(trained, tmp_path / "model.tflite", dtype=dtype, data=data)
    assert path.stat().st_size < share * full.stat().st_size
    expected = answers(trained, sample.x_test[:100])
    found = TFLiteRunner(path)(sample.x_test[:100])
    assert np.abs(found - expected).mean() < difference / 5
    assert np.abs(found - expected).max() < difference
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.9


@pytest.mark.slow
def test_weights_alone_in_8_bits(trained, tmp_path, capfd):
    pytest.importorskip("ai_edge_quantizer")
    sample = load_sample()
    capfd.readouterr()
    names = list(sample.class_names)
    path = export.tflite(trained, tmp_path / "model.tflite", dtype="int8_weights", class_names=names, verbose=0)
    assert read_metadata(path.read_bytes()).class_names == sample.class_names
    expected = answers(trained, sample.x_test[:50])
    found = TFLiteRunner(path)(sample.x_test[:50])
    assert capfd.readouterr().out == ""  # the quantizer prints its sizes, and the command line prints JSON
    assert path.stat().st_size < 0.6 * trained.count_params() * 4
    assert np.abs(found - expected).max() < 0.1


def test_weights_alone_name_the_missing_package(small, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_quantizer", None)
    with pytest.raises(ImportError, match="quantize"):
        export.tflite(small, tmp_path / "model.tflite", dtype="int8_weights")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(("input_type", "zero"), [("uint8", 0), ("int8", -128)])
def test_integer_inputs_take_pixels_as_they_are(input_type, zero, trained, tmp_path):
    sample = load_sample()
    path = export.tflite(
        trained,
        tmp_path / "model.tflite",
        dtype="int8",
        input_type=input_type,
        data=sample.x_train[:120],
    )
    runner = TFLiteRunner(path)
    (tensor,) = runner.ends[0].values()
    assert tensor["dtype"] == np.dtype(input_type).type
    assert tensor["quantization"] == (1.0, zero)
    assert {tensor["dtype"] for tensor in runner.interpreter.get_tensor_details()} <= {np.int8, np.uint8, np.int32}
    expected = answers(trained, sample.x_test[:50])
    assert (runner(sample.x_test[:50]).argmax(1) == expected.argmax(1)).mean() >= 0.85


@pytest.mark.slow
def test_dead_blocks_become_constants(small, tmp_path):
    model = keras.models.clone_model(small)
    block = model.get_layer("stage2_block1_se")
    block.reduce_bias.assign(block.reduce_bias - 1e4)
    block.expand_bias.assign(np.linspace(-1, 1, 16))
    images = np.random.default_rng(0).integers(0, 256, (120, 32, 32, 3)).astype("uint8")
    path = export.tflite(model, tmp_path / "model.tflite", dtype="int8", data=images)
    assert ready(TFLiteRunner(path)).count("LOGISTIC") < 3
    difference = TFLiteRunner(path)(images[:20]) - answers(model, images[:20])
    assert np.abs(difference).max() < 0.05


def test_pools_over_padding_become_convolutions(tmp_path):
    images = keras.Input((9, 9, 6))
    x = layers.AveragePooling2D(3, 2, name="pool")(layers.ZeroPadding2D(1)(images))
    x = layers.AveragePooling2D(2, padding="same")(x)
    model = keras.Model(images, layers.MaxPooling2D(2)(layers.ZeroPadding2D(1)(x)))
    path = export.tflite(model, tmp_path / "model.tflite")
    counts = read_tflite(path).counts()
    assert (counts["AVERAGE_POOL_2D"], counts["DEPTHWISE_CONV_2D"], counts["MAX_POOL_2D"]) == (1, 1, 1)
    runner = TFLiteRunner(path)
    noise = images_for(model)
    np.testing.assert_allclose(runner(noise), answers(model, noise), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("groups", "width", "filters", "found"), [(8, 2, 8, 2), (4, 2, 16, 2), (4, 4, 4, 1), (3, 6, 18, 3), (2, 4, 8, 2)]
)
def test_narrow_groups_are_joined(groups, width, filters, found):
    images = keras.Input((6, 5, groups * width))
    options = {"groups": groups, "padding": "same", "bias_initializer": "random_normal"}
    model = keras.Model(images, se_keras.layers.GroupedConv2D(filters, 3, **options)(images))
    rewritten = build_model(gpu_form(read_graph(model)))
    assert joined_groups(model.layers[-1]) * rewritten.layers[-1].groups == groups
    assert rewritten.layers[-1].groups == found
    noise = images_for(model)
    expected = answers(model, noise)
    np.testing.assert_allclose(answers(rewritten, noise), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.slow
def test_squeeze_in_stages(small, tmp_path):
    images = images_for(small)
    expected = answers(small, images)
    counts = {}
    for squeeze in ("mean", "staged"):
        runner = TFLiteRunner(export.tflite(small, tmp_path / f"{squeeze}.tflite", squeeze=squeeze))
        np.testing.assert_allclose(runner(images), expected, rtol=1e-4, atol=1e-6)
        counts[squeeze] = ready(runner).count("AVERAGE_POOL_2D")
    assert counts["mean"] == 0
    assert counts["staged"] == 2  # maps of 32 and 16; those of 8 are one window


def test_squeeze_is_staged_where_half_precision_would_overflow(tmp_path):
    images = keras.Input((32, 32, 3))
    loud = layers.Rescaling(10.0)(images)  # sums of up to 2.6 million
    squeezed = layers.GlobalAveragePooling2D(keepdims=True, name="loud")(loud)
    quiet = layers.GlobalAveragePooling2D(keepdims=True, name="quiet")(layers.Rescaling(0.01)(images))
    model = keras.Model(images, layers.Flatten()(layers.Add()([squeezed, quiet])))
    data = np.full((4, 32, 32, 3), 200, "float32")
    for given, pools in ((None, 0), (data, 1)):
        path = export.tflite(model, tmp_path / "m.tflite", data=given, overwrite=True)
        assert ready(TFLiteRunner(path)).count("AVERAGE_POOL_2D") == pools


@pytest.mark.slow
def test_half_precision_models_are_exported_in_single(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = shortened("se_resnet20")
    path = export.tflite(model, tmp_path / "model.tflite")
    runner = TFLiteRunner(path)
    assert {tensor["dtype"] for tensor in runner.interpreter.get_tensor_details()} <= {np.float32, np.int32}
    images = images_for(model)
    np.testing.assert_allclose(runner(images), answers(model, images), atol=2e-2)


def test_labels_go_into_the_file_and_beside_it(small, tmp_path):
    path = export.tflite(small, tmp_path / "model.tflite", class_names=LABELS)
    assert read_metadata(path.read_bytes()).class_names == tuple(LABELS)
    beside = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert beside["class_names"] == LABELS
    assert beside["shape"] == [1, 32, 32, 3]
    assert beside["output"] == "probabilities"
    assert beside["input"]["range"] == [0, 255]
    assert sorted(os.listdir(tmp_path)) == ["model.json", "model.tflite"]


def test_description_of_a_foreign_model(tmp_path):
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, layers.Dense(2)(layers.Flatten()(images)))
    found = json.loads(export.tflite(model, tmp_path / "m.tflite").with_suffix(".json").read_text("utf-8"))
    assert found["output"] == "logits"
    assert found["input"]["range"] is None
    assert "crop_pct" not in found["input"]
    assert found["calibration"] is None


def simple(*steps):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((8, 8, 3)), *steps, layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3, activation="softmax")]
    )


@pytest.mark.parametrize(
    ("steps", "pixels", "normalization"),
    [((layers.Rescaling(1 / 255),), [0, 255], ((0,), (1,))), ((), None, ((), ()))],
    ids=["rescaling", "unstated"],
)
def test_metadata_of_models_without_our_preprocessing(steps, pixels, normalization, tmp_path):
    path = export.tflite(simple(*steps), tmp_path / "m.tflite", class_names=["a", "b", "c"], verbose=0)
    described = json.loads(path.with_suffix(".json").read_text("utf-8"))["input"]
    assert described == {"height": 8, "width": 8, "range": pixels, "dtype": "float32"}
    metadata = read_metadata(path.read_bytes())
    assert (metadata.mean, metadata.std) == normalization
    assert metadata.class_names == ("a", "b", "c")


def test_a_folder_for_a_model_that_does_not_state_its_range(tmp_path, rng):
    for number in range(100):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"{number}.png")
    model, path = simple(), tmp_path / "m.tflite"
    with pytest.warns(UserWarning, match=r"do not show the range of its images, so photos are passed .* 0 to 255"):
        export.tflite(model, path, dtype="int8", data=tmp_path, verbose=0)
    report = export.verify(path, model, data=tmp_path, verbose=0, gpu_images=0, repeats=0)
    assert any("do not show the range of its images" in note for note in report.notes)
    whole = keras.Sequential([keras.Input((8, 8, 3)), se_keras.layers.ImagePreprocessing(mean=[0], std=[1]), model])
    export.tflite(whole, path, dtype="int8", data=tmp_path, overwrite=True, verbose=0)
    report = export.verify(path, whole, data=tmp_path, verbose=0, gpu_images=0, repeats=0)
    assert not report.notes


def test_names_of_images_with_four_channels_are_in_the_description_only(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 4)), layers.Flatten(), layers.Dense(2, activation="softmax")])
    path = export.tflite(model, tmp_path / "m.tflite", class_names=["a", "b"], verbose=0)
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["class_names"] == ["a", "b"]
    assert read_metadata(path.read_bytes()) is None


def test_divided_images_are_noticed_for_a_model_that_divides_them(tmp_path, rng):
    images, path = rng.uniform(0, 1, (100, 8, 8, 3)), tmp_path / "m.tflite"
    model = simple(layers.Rescaling(1 / 255))
    with pytest.warns(
        UserWarning, match=r"layers scale pixels from 0 to 255, and the images range from .* to (1|0\.99)"
    ):
        export.tflite(model, path, dtype="int8", data=images, verbose=0)
    report = export.verify(path, model, data=images, verbose=0, gpu_images=0, repeats=0)
    assert any("layers scale pixels from 0 to 255" in note for note in report.notes)
    fine = export.verify(path, model, data=255 * images, verbose=0, gpu_images=0, repeats=0)
    assert not fine.notes


@pytest.mark.parametrize(
    ("layer", "shape", "dtype", "high"),
    [
        (lambda: layers.Rescaling(1 / 65535), (8, 8, 3), "float32", 65535),
        (lambda: layers.Normalization(mean=[280.0], variance=[100.0]), (8, 8, 1), "float32", 310),
        (lambda: layers.Rescaling(1.0), (8, 8, 4), "uint8", 2),
        (lambda: layers.Rescaling(1 / 255), (4, 1, 3), "float32", 256),
    ],
    ids=["16 bits", "kelvin", "planes", "narrow"],
)
def test_other_maps_are_calibrated_as_they_are(layer, shape, dtype, high, tmp_path, rng):
    inputs = keras.Input(shape, dtype=dtype)
    x = layers.Dense(2)(layers.Flatten()(layer()(inputs)))
    images = rng.integers(0, high, (100, *shape)).astype(dtype)
    path = export.tflite(keras.Model(inputs, x), tmp_path / "m.tflite", dtype="int8", data=images, verbose=0)
    assert path.is_file()


def test_calibration_reports_what_it_saw(small):
    images = np.random.default_rng(0).integers(10, 200, (120, 32, 32, 3))
    options = {"inputs": inputs_of(small), "preprocessing": stored_preprocessing(small)}
    found = calibrate(images, **options)
    assert found.facts() == {"images": 100, "range": [10, 199]}
    extended = found.with_extremes().feed["images"]
    assert (extended.min(), extended.max()) == (0, 255)  # so that an integer input has the scale 1
    assert calibrate(images, **options, most=128).facts()["images"] == 120
    assert calibrate(np.concatenate([images, images[:20] + 1]), **options, most=128).facts()["images"] == 128


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.random.default_rng(0).random((150, 32, 32, 3)), "0 to 255"),
        (np.full((150, 32, 32, 3), np.nan), "different"),
    ],
)
def test_poor_calibration_data_is_refused(data, message, small, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.tflite(small, tmp_path / "model.tflite", dtype="int8", data=data)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_type": "uint8"}, "Integer inputs require dtype='int8'"),
        ({"squeeze": "sum"}, "mean"),
    ],
)
def test_wrong_arguments(options, message, small, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.tflite(small, tmp_path / "model.tflite", **options)
    assert os.listdir(tmp_path) == []


def test_open_input_size_is_refused(tmp_path):
    model = se_keras.SEResNet20(input_shape=(None, None, 3))
    with pytest.raises(ValueError, match=r"fixed input size.*\(None, None, 3\)"):
        export.tflite(model, tmp_path / "model.tflite")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_an_operation_without_a_16_bit_form_is_named(tmp_path, rng):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Activation("hard_silu")(keras.layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    photos = rng.uniform(0, 255, (128, 8, 8, 3)).astype("float32")
    with pytest.raises(ValueError, match=r"no 16-bit form of HARD_SWISH; received dtype='int16x8'\. Pass"):
        export.tflite(model, tmp_path / "model.tflite", dtype="int16x8", data=photos)
    assert not list(tmp_path.iterdir())
