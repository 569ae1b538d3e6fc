"""Verification: what the report says of good files, and that it sees what is wrong with bad ones."""

import dataclasses
import json
import os
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from small_networks import answers, shortened

from se_keras import export
from se_keras.export import process, worker
from se_keras.export.agreement import LIMITS, Agreement, Limits, compare
from se_keras.export.headroom import LARGEST_HALF, headroom_of_model, headroom_of_tflite
from se_keras.export.images import check_range, preparation_of, real_images
from se_keras.export.inputs import Samples, random_images
from se_keras.export.inspect_tflite import Operation, Tensor, TFLiteGraph, read_tflite, refusals
from se_keras.export.process import RuntimeRefusedError, Worker
from se_keras.export.report import Report
from se_keras.export.runtime import format_of, open_runner
from se_keras.export.structure import size_of, structure_of
from se_keras.export.tflite_file import dequantized, quantized
from se_keras.export.tflite_runtime import TFLiteRunner
from se_keras.images.record import Preprocessing

QUICK = {"gpu_images": 0, "repeats": 0}


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """One file of each format, by the name of the format."""
    folder = tmp_path_factory.mktemp("files")
    model.save(folder / "model.keras")
    return {
        "tflite": export.tflite(model, folder / "model.tflite"),
        "saved_model": export.saved_model(model, folder / "saved"),
        "keras": folder / "model.keras",
    }


@pytest.fixture
def photos(tmp_path):
    """Ten subfolders, one a class, of two photos each."""
    rng = np.random.default_rng(1)
    for number in range(20):
        path = tmp_path / "photos" / f"class{number % 10}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), "uint8")).save(path)
    return tmp_path / "photos"


@pytest.mark.parametrize("kind", ["tflite", "saved_model", pytest.param("keras", marks=pytest.mark.slow)])
def test_good_file_passes(kind, model, files, photos):
    report = export.verify(files[kind], model, data=photos, **QUICK)
    assert report.passed, report.failures
    assert (report.format, report.dtype) == (kind, "fp32")
    assert [agreement.images for agreement in report.agreements] == ["random", "real"]
    real = report.agreements[1]
    assert (real.count, real.runtime, real.quantity) == (20, kind, "logits")
    assert real.relative_error < 1e-5
    assert real.top1_agreement == real.top5_agreement == 1
    assert real.accuracy == real.reference_accuracy
    assert real.accuracy_drop == 0
    assert report.size == size_of(files[kind]) > 4 * model.count_params()


def test_report_is_one_page_in_three_forms(model, files, tmp_path):
    report = export.verify(files["tflite"], model, gpu_images=0, repeats=2)
    text = str(report)
    assert text.endswith("passed")
    assert max(map(len, text.splitlines()[8:])) < 160
    assert len(text.splitlines()) < 50
    paths = export.write_report(report, tmp_path / "report")
    content = json.loads(paths[0].read_text())
    assert content["passed"] is True
    assert content["speeds"][0]["runs"] == 2
    assert content["speeds"][0]["peak_memory"] > 1e6
    assert len(content["headrooms"]) == 4
    assert content["agreements"][0]["relative_error"] < 1e-5
    assert "| 8 random | LiteRT CPU | logits |" in paths[1].read_text()
    assert {"report.json", "report.md"} <= set(os.listdir(tmp_path / "report"))


def test_model_in_half_precision_is_compared_in_float32(model, files, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = shortened("se_resnet20")
    half.set_weights(model.get_weights())
    half.save(tmp_path / "half.keras")
    keras.config.set_dtype_policy("float32")
    for reference in (half, tmp_path / "half.keras"):
        report = export.verify(files["tflite"], reference, **QUICK)
        assert report.passed, report.failures
        assert report.reference.endswith(", in float32")
    report = export.verify(tmp_path / "half.keras", half, **QUICK)
    assert report.passed, report.failures
    assert report.reference == "the Keras model short"


def test_file_of_another_model_fails(model, files):
    keras.utils.set_random_seed(1)
    report = export.verify(files["tflite"], shortened("se_resnet20"), **QUICK)
    assert not report.passed
    assert "the logits may differ by" in report.failures[0]
    assert "FAILED" in str(report)


def test_two_files_are_compared_without_a_model(files):
    report = export.verify(files["tflite"], files["saved_model"], **QUICK)
    assert report.passed
    assert report.reference == os.fspath(files["saved_model"])


def test_file_alone_is_measured(files):
    report = export.verify(files["tflite"], **QUICK)
    assert report.passed
    assert report.reference is None
    assert report.agreements == ()
    assert report.operations["LOGISTIC"] == 3


def test_numbers_that_are_not_finite_fail(tmp_path):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Flatten()(inputs)
    broken = keras.Model(inputs, keras.layers.Dense(10, bias_initializer=keras.initializers.Constant(np.nan))(x))
    path = tmp_path / "broken.keras"
    broken.save(path)
    alone = export.verify(path, **QUICK)
    assert "not finite" in alone.failures[0]
    compared = export.verify(path, broken, **QUICK)
    assert "not finite" in compared.failures[0]
    assert json.loads(compared.to_json())["agreements"][0]["max_error"] is None


def test_model_with_another_head_or_size_is_refused(files):
    with pytest.raises(ValueError, match=r"shapes \(8, 10\).*\(8, 5\)"):
        export.verify(files["tflite"], shortened("se_resnet20", classes=5), **QUICK)
    with pytest.raises(ValueError, match=r"\(32, 32, 3\).*\(48, 48, 3\)"):
        export.verify(files["tflite"], shortened("se_resnet20", input_shape=(48, 48, 3)), **QUICK)


def test_unknown_target_is_refused(files):
    with pytest.raises(ValueError, match="Unknown target 'fridge'"):
        export.verify(files["tflite"], targets=["fridge"])


# Images and labels.


def test_images_of_0_to_1_are_detected(model, files, rng):
    with pytest.raises(ValueError, match="expects images in the range 0 to 255; received"):
        export.verify(files["tflite"], model, data=rng.uniform(0, 1, (4, 32, 32, 3)).astype("float32"), **QUICK)


def test_labels_that_do_not_fit_are_refused(model, files, rng, photos):
    images = rng.uniform(0, 255, (4, 32, 32, 3))
    for data, labels, message in (
        (images, [1, 2, 3], "one entry per image; received 3 for 4"),
        (photos, [1, 2, 3], "one entry per image; received 3 for 20"),
        (images, [0, 1, 2, 10], "between 0 and 9.*0 to 10"),
        (None, [1], "Pass the images as `data`"),
    ):
        with pytest.raises(ValueError, match=message):
            export.verify(files["tflite"], model, data=data, labels=labels, **QUICK)


def test_subfolders_that_are_not_the_classes_give_no_accuracy(model, files, photos):
    shutil.rmtree(photos / "class9")
    report = export.verify(files["tflite"], model, data=photos, **QUICK)
    assert report.agreements[1].accuracy is None
    assert any("9 subfolders" in note for note in report.notes)


def test_images_come_from_arrays_folders_and_pipelines(rng, photos):
    record = Preprocessing(size=32)
    images = rng.uniform(0, 255, (6, 32, 32, 3)).astype("float32")
    labels = [3, 1, 4, 1, 5, 9]

    def read(data, labels=None, most=6):
        return real_images(data, labels, (32, 32, 3), record=record, most=most)

    for array in (images, tf.constant(images)):  # a few of an array sorted by class are of all classes
        few = read(array, labels, most=3)
        np.testing.assert_array_equal(few.images, images[[0, 2, 5]])
        assert few.labels.tolist() == [3, 4, 9]
    pipeline = tf.data.Dataset.from_tensor_slices((images, labels))
    for data in (pipeline, pipeline.batch(4), pipeline.map(lambda image, label: (image, tf.one_hot(label, 10)))):
        found = read(data)
        np.testing.assert_array_equal(found.images, images)
        assert found.labels.tolist() == labels
    assert read(tf.data.Dataset.from_tensor_slices(images), labels).labels.tolist() == labels
    folder = read(photos, most=10)
    assert (folder.images.shape, folder.folders) == ((10, 32, 32, 3), tuple(f"class{number}" for number in range(10)))
    assert folder.labels.tolist() == list(range(10))
    assert read(images[:, :20]).images.shape == (6, 32, 32, 3)
    with pytest.raises(ValueError, match="must hold at least one image"):
        read([])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read("nowhere")


def test_random_images_and_preparation(model):
    images = random_images((30, 20, 3), 4)
    assert images.shape == (4, 30, 20, 3)
    assert 0 <= images.min() < 5
    assert 250 < images.max() <= 255
    check_range(images)
    assert preparation_of(model, (64, 48)).size == (64, 48)
    assert preparation_of(None, (64, 48)).crop == 0.875


@pytest.mark.slow
def test_preparation_serves_models_without_their_own(tmp_path, rng):
    model = shortened("se_resnet20", include_preprocessing=False)
    path = export.tflite(model, tmp_path / "model.tflite")
    images = rng.uniform(0, 255, (4, 32, 32, 3))
    seen = []
    report = export.verify(path, model, data=images, preprocessing=lambda x: seen.append(x) or x / 255, **QUICK)
    assert report.passed
    np.testing.assert_allclose(seen[1], images, rtol=1e-6)
    record = Preprocessing(size=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    again = export.verify(path, model, data=images, preprocessing=record, **QUICK)
    assert again.agreements == report.agreements


# Damaged and foreign files.


def test_damaged_and_foreign_files_are_named(files, tmp_path):
    whole = files["tflite"].read_bytes()
    for name, content, message in (
        ("half.tflite", whole[: len(whole) // 2], "damaged or cut short"),
        ("short.tflite", whole[:40], "damaged or cut short"),
        ("empty.tflite", b"", "not a model that can be run here"),
        ("foreign.tflite", b"\x89PNG\r\n\x1a\n" + bytes(100), "not a model that can be run here"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            export.verify(path)
        assert name in str(error.value)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        format_of(tmp_path / "nowhere.tflite")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"not a SavedModel: it holds no file saved_model\.pb"):
        format_of(tmp_path / "folder")
    (tmp_path / "folder" / "saved_model.pb").write_bytes(b"no protobuf")
    with pytest.raises(ValueError, match="is damaged"):
        structure_of(tmp_path / "folder")
    cut = shutil.copytree(files["saved_model"], tmp_path / "cut")
    next(cut.glob("variables/*.data*")).write_bytes(b"cut")  # for which TensorFlow has an IndexError
    with pytest.raises(ValueError, match="cut' cannot be loaded; it is damaged"):
        open_runner(cut)


# Structure and refusals.


def tensor(shape=(1, 8, 8, 4), dtype="FLOAT32", constant=False, index=0):
    return Tensor(index, "t", shape, dtype, constant)


def graph_of(*operations, shape=(1, 8, 8, 4), dtype="FLOAT32"):
    rim = (tensor(shape, dtype, index=90),)
    return TFLiteGraph(operations, rim, rim)


def unary(name, dtype="FLOAT32", shape=(1, 8, 8, 4), custom=False):
    return Operation(name, custom, (tensor(shape, dtype, index=1),), (tensor(shape, dtype, index=2),))


@pytest.mark.parametrize(
    ("graph", "target", "reason"),
    [
        (graph_of(unary("FlexStridedSlice", custom=True)), "cpu", "Flex"),
        (graph_of(unary("MyLayer", custom=True)), "cpu", "the application must provide"),
        (graph_of(unary("BROADCAST_TO")), "gpu", "at any rank"),
        (graph_of(unary("RELU_0_TO_1")), "gpu", r"relu6\(x \+ 3\) / 6"),
        (graph_of(unary("RESHAPE", shape=(1, 2, 2, 2, 4))), "gpu", "more than four dimensions"),
        (graph_of(unary("ADD"), shape=(8, 8, 8, 4)), "gpu", "8 images at a time"),
        (graph_of(unary("ADD"), shape=(-1, 8, 8, 4)), "gpu", r"\(-1, 8, 8, 4\) open"),
        (graph_of(unary("ADD", "INT16")), "gpu", "16-bit integers"),
        (graph_of(unary("ADD")), "edgetpu", "8-bit integers throughout"),
        (graph_of(unary("GELU", "INT8"), dtype="INT8"), "edgetpu", "would run on the CPU"),
        (graph_of(unary("MUL", "INT8"), unary("ADD", "FLOAT32"), dtype="INT8"), "edgetpu", "does not compute on 8"),
    ],
)
def test_refusals(graph, target, reason):
    found = [refusal for refusal in refusals(graph) if refusal.target == target]
    assert len(found) == 1
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found[0].reason)
    report = Report(path="x", format="tflite", dtype="fp32", size=1, refusals=tuple(found))
    assert report.passed
    assert not dataclasses.replace(report, targets=(target,)).passed


def convolution(side, strides, dtype="INT8"):
    weights = tensor((8, side, side, 4), dtype, constant=True)
    parts = (tensor(dtype=dtype), weights), (tensor((1, 4, 4, 8), dtype),)
    return graph_of(Operation("CONV_2D", False, *parts, strides=strides), dtype=dtype)


def test_strided_points_of_integers_are_refused_by_gpus():
    for side, strides, dtype, wrong in (
        (1, (2, 2), "INT8", True),
        (1, (1, 1), "INT8", False),
        (3, (2, 2), "INT8", False),
        (1, (2, 2), "FLOAT32", False),
    ):
        found = [entry for entry in refusals(convolution(side, strides, dtype)) if entry.target == "gpu"]
        assert [("strided 1x1 convolution" in entry.reason) for entry in found] == [True] * wrong


@pytest.mark.parametrize(("filters", "width", "narrow"), [(16, 4, False), (8, 4, True), (16, 2, True), (16, 16, False)])
def test_narrow_groups_are_refused_by_gpus(filters, width, narrow):
    weights = tensor((filters, 3, 3, width), constant=True)
    parts = (tensor((1, 8, 8, 16)), weights), (tensor((1, 8, 8, filters)),)
    found = refusals(graph_of(Operation("CONV_2D", False, *parts, strides=(1, 1))))
    assert ["groups" in entry.reason for entry in found if entry.target == "gpu"] == [True] * narrow


def test_pools_over_padding_are_refused_by_gpus():
    padded, pooled = tensor((1, 10, 10, 4), index=2), tensor(index=3)
    pad = Operation("PAD", False, (tensor(index=1),), (padded,))
    for name, wrong in (("AVERAGE_POOL_2D", True), ("MAX_POOL_2D", False)):
        found = refusals(graph_of(pad, Operation(name, False, (padded,), (pooled,), window=(3, 3), strides=(1, 1))))
        assert ["PAD" in entry.reason for entry in found if entry.target == "gpu"] == [True] * wrong


def test_strides_are_read_from_the_file(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2)(inputs)
    model = keras.Model(inputs, keras.layers.AveragePooling2D(2, strides=1)(x))
    operations = read_tflite(export.tflite(model, tmp_path / "model.tflite")).operations
    assert [(operation.strides, operation.window) for operation in operations] == [((2, 2), None), ((1, 1), (2, 2))]


def test_grouped_convolution_is_refused_by_the_edge_tpu():
    weights = tensor((8, 3, 3, 2), "INT8", constant=True)
    grouped = Operation("CONV_2D", False, (tensor(dtype="INT8"), weights), (tensor(dtype="INT8"),))
    found = [entry.reason for entry in refusals(graph_of(grouped, dtype="INT8")) if entry.target == "edgetpu"]
    assert found == ["is a grouped convolution"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "dynamic"])
def test_dtype_is_told_from_the_file(model, files, dtype, tmp_path):
    path = files["tflite"] if dtype == "fp32" else export.tflite(model, tmp_path / "model.tflite", dtype=dtype)
    assert read_tflite(path).dtype() == dtype == structure_of(path).dtype
    assert not [refusal for refusal in refusals(read_tflite(path)) if refusal.target in ("cpu", "gpu")]


def test_must_compile_functions_are_refused_for_serving(tmp_path):
    module = tf.Module()
    module.serve = tf.function(
        tf.function(lambda images: {"output": images * 2}, jit_compile=True),
        input_signature=[tf.TensorSpec((None, 8, 8, 3), name="images")],
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.serve)
    found = structure_of(tmp_path / "saved").refusals
    assert [(refusal.target, refusal.count) for refusal in found] == [("serving", 1)]


# Integers.


@pytest.fixture(scope="module")
def int8_file(tmp_path_factory):
    """A small network that XNNPACK takes in int8, with bytes going in and coming out."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(6, activation="softmax")(x))
    images = np.random.default_rng(0).integers(0, 256, (128, 16, 16, 3), "uint8")
    path = tmp_path_factory.mktemp("int8") / "model.tflite"
    export.tflite(model, path, dtype="int8", data=images, input_type="uint8")
    return model, path


def test_integer_file_takes_and_gives_floats(int8_file, rng):
    model, path = int8_file
    runner = TFLiteRunner(path)
    assert next(iter(runner.ends[0].values()))["dtype"] is np.uint8
    images = rng.uniform(0, 255, (4, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(runner(images), answers(model, images), atol=0.02)
    np.testing.assert_array_equal(runner(images.round()), runner(images.round().astype("uint8")))


def test_integer_file_is_judged_by_real_images_only(int8_file, rng):
    model, path = int8_file
    report = export.verify(path, model, **QUICK)
    assert report.dtype == "int8"
    assert report.passed
    assert any("not judged" in note for note in report.notes)
    images = rng.uniform(0, 255, (32, 16, 16, 3))
    labels = answers(model, images).argmax(-1)
    report = export.verify(path, model, data=images, labels=labels, limits=Limits(accuracy_drop=-1.0), **QUICK)
    assert report.agreements[1].reference_accuracy == 1
    assert report.agreements[1].quantity == "probabilities"
    assert "accuracy may drop by" in report.failures[0]
    assert str(report).endswith("or 'fp16'; layers=True (--layers) shows where the error arises.")


def test_quantization_round_trips_and_saturates():
    details = {"quantization": (0.5, 10), "dtype": np.int8}
    stored = quantized(np.array([-1000.0, 0.0, 0.6, 1000.0]), details)
    assert stored.tolist() == [-128, 10, 11, 127]
    assert dequantized(stored, details).tolist() == [-69.0, 0.0, 0.5, 58.5]
    plain = {"quantization": (0.0, 0), "dtype": np.float32}
    assert dequantized(quantized(np.array([1.5]), plain), plain).tolist() == [1.5]


# Comparing.


def test_logits_are_recovered_from_probabilities(rng):
    logits = rng.normal(0, 4, (5, 8))
    shifted = logits + rng.normal(size=(5, 1))  # softmax does not see a common shift

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    part = Samples("random", {"images": random_images((1, 1, 3), 5)})
    same = compare(softmax(logits), softmax(shifted), part, runtime="onnx", dtype="fp32")
    assert same.quantity == "logits"
    assert same.max_error < 1e-9
    logits[0, 0] += 0.5
    other = compare(softmax(logits), softmax(shifted), part, runtime="onnx", dtype="fp32")
    assert other.max_error == pytest.approx(0.5 * 7 / 8)


def test_agreement_counts_classes(rng):
    expected = np.eye(10)[:4]
    found = np.eye(10)[[0, 1, 2, 5]]
    part = Samples("random", {"images": random_images((1, 1, 3), 4)}, np.array([0, 1, 9, 3]))
    agreement = compare(expected, found, part, runtime="tflite", dtype="int8")
    assert agreement.top1_agreement == 0.75
    assert agreement.reference_accuracy == 0.75
    assert agreement.accuracy == 0.5
    assert agreement.accuracy_drop == 0.25
    features = compare(rng.normal(size=(4, 2, 2, 3)), np.zeros((4, 2, 2, 3)), part, runtime="tflite", dtype="fp32")
    assert features.top1_agreement is None
    assert features.quantity == "outputs"


def images_part(count, labels=None):
    return Samples("real", {"images": random_images((1, 1, 3), count)}, labels)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("output", (8, 8, 8, 3)), ("output", (100, 16)), ("logit", (400, 1)), ("logits", (400, 4))],
    ids=["map", "embedding", "number", "box"],
)
def test_8_bit_files_are_judged_by_the_noise_in_outputs_that_are_no_classes(kind, shape, rng):
    expected = rng.normal(size=shape) + 100 * np.arange(1, 1 + shape[-1])  # the order of the columns is always the same
    for noise, passes in ((0.1, True), (0.5, False)):
        found = expected + noise * rng.normal(size=shape)
        agreement = compare(expected, found, images_part(shape[0]), runtime="tflite", dtype="int8", kind=kind)
        assert agreement.squared_error == pytest.approx(noise**2, rel=0.2)
        failures = list(agreement.failures(LIMITS["int8"], judge_classes=True))
        assert (not failures) == passes, failures
    assert "the relative squared error of the outputs may be at most 0.1; it is" in failures[0]
    assert not list(agreement.failures(LIMITS["int8"], judge_classes=False))  # random images


@pytest.mark.parametrize(("value", "text"), [(0.0101, "0.0101"), (0.2, "0.2"), (0.01 + 1e-12, "0.010000000001")])
def test_a_value_above_a_limit_is_shown_above_it(value, text, rng):
    agreement = dataclasses.replace(
        compare(np.ones((1, 2)), np.zeros((1, 2)), images_part(1), runtime="onnx", dtype="fp16"), relative_error=value
    )
    (failure, *_) = agreement.failures(LIMITS["fp16"], judge_classes=False)
    assert failure.endswith(f"may differ by 0.01 of the largest; they differ by {text}.")


def test_outputs_that_are_the_same_for_all_images_have_no_squared_error():
    for expected in (np.ones((1, 1)), np.array([[0.1], [0.1], [np.nextafter(np.float32(0.1), 1)]])):
        agreement = compare(expected, expected + 1e-3, images_part(1), runtime="tflite", dtype="int8")
        assert agreement.squared_error is None


def maps_and_number():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    number = keras.layers.Dense(1, activation="relu", name="number")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, [keras.layers.Conv2D(2, 1, name="maps")(x), number])


def test_badly_calibrated_maps_fail(tmp_path, rng):
    model = maps_and_number()
    maps = keras.Model(model.inputs, model.outputs[0])
    images = rng.uniform(0, 1, (100, 8, 8, 3)).astype("float32")
    for name, scale, passes in (("good", 1, True), ("dark", 0.1, False)):
        path = export.tflite(maps, tmp_path / f"{name}.tflite", dtype="int8", data=scale * images, verbose=0)
        report = export.verify(path, maps, data=images, verbose=0, **QUICK)
        assert report.passed == passes, report
        assert "squared" in str(report)
        assert "top-1" not in str(report)
    assert "the relative squared error of the outputs may be at most 0.1" in str(report)


def test_a_file_with_unreadable_class_names_is_verified(tmp_path):
    maps = keras.Model((model := maps_and_number()).inputs, model.outputs[0])
    path = export.saved_model(maps, tmp_path / "saved", verbose=0)
    (path / "assets").mkdir(exist_ok=True)
    (path / "assets/labels.txt").write_text("cat\ncat\ndog\n")
    report = export.verify(path, maps, verbose=0, **QUICK)
    assert report.passed
    assert any(note.startswith("The class names in the file cannot be read. Each class must") for note in report.notes)


def test_a_file_that_lacks_outputs_of_its_model_fails(tmp_path):
    pytest.importorskip("tf2onnx", reason="needs the extra 'onnx'")
    model = maps_and_number()
    maps = keras.Model(model.inputs, model.outputs[0])
    path = export.onnx(maps, tmp_path / "maps.onnx", verbose=0)
    (failure,) = export.verify(path, model, verbose=0, **QUICK).failures
    assert failure.startswith("The file lacks outputs of the model, 'number'; only "), failure
    more = export.verify(export.onnx(model, tmp_path / "both.onnx", verbose=0), maps, verbose=0, **QUICK)
    assert any(note.startswith("The file has 2 outputs, and the model has one; only ") for note in more.notes)


def colors(folder, count, size=8):
    """Writes photos of two colors, in folders named after it."""
    for name, pixel in (("green", (0, 255, 0)), ("red", (255, 0, 0))):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            shade = tuple(max(value - number, 0) for value in pixel)
            Image.new("RGB", (size, size), shade).save(folder / name / f"{number}.png")


def red_first():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    scores = keras.layers.Dense(2, activation="softmax", name="scores")
    model = keras.Model(inputs, scores(keras.layers.GlobalAveragePooling2D()(x)))
    scores.set_weights([np.array([[9.0, 0.0], [0.0, 9.0], [0.0, 0.0]]), np.zeros(2)])
    return model


def test_folders_are_found_by_the_class_names_of_the_file(tmp_path):
    colors(tmp_path / "photos", 4)
    model = red_first()
    path = export.tflite(model, tmp_path / "model.tflite", class_names=["red", "green"], verbose=0)
    report = export.verify(path, model, data=tmp_path / "photos", verbose=0, **QUICK)
    assert report.agreements[-1].accuracy == report.agreements[-1].reference_accuracy == 1
    assert not report.notes
    path = export.tflite(model, tmp_path / "other.tflite", class_names=["warm", "cold"], verbose=0)
    report = export.verify(path, model, data=tmp_path / "photos", verbose=0, **QUICK)
    assert any("not named like the model's classes, so they stand" in note for note in report.notes)


def test_exports_calibrate_on_train_and_verify_reads_val(tmp_path):
    colors(tmp_path / "photos/train", 60)
    colors(tmp_path / "photos/val", 4)
    path, photos = tmp_path / "model.tflite", tmp_path / "photos"
    export.tflite(red_first(), path, dtype="int8", data=photos, class_names=["red", "green"], verbose=0)
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["calibration"]["images"] == 100
    report = export.verify(path, red_first(), data=photos, verbose=0, **QUICK)
    assert (report.agreements[-1].count, report.agreements[-1].accuracy) == (8, 1)


def test_several_labels_per_image_are_not_judged_by_the_most_probable(rng):
    expected = rng.uniform(0.8, 1, (50, 4)) * (rng.uniform(size=(50, 4)) > 0.5)
    found = np.clip(expected + rng.uniform(-0.05, 0.05, expected.shape), 0, 1)
    options = {"runtime": "tflite", "dtype": "int8", "kind": "independent_probabilities"}
    agreement = compare(expected, found, images_part(50), **options)
    assert agreement.top1_agreement < 0.98
    assert not list(agreement.failures(LIMITS["int8"], judge_classes=True))
    exclusive = compare(expected, found, images_part(50, labels=np.zeros(50, int)), **options)
    assert "must have the same top class" in next(exclusive.failures(LIMITS["int8"], judge_classes=True))


@pytest.mark.parametrize("dtype", LIMITS)
def test_limits_of_every_dtype(dtype):
    limits = LIMITS[dtype]
    good = Agreement(
        images="real",
        count=100,
        runtime="tflite",
        quantity="logits",
        max_error=0.1,
        mean_error=0.0,
        relative_error=(limits.relative_error or 0.5) * 0.9,
        top1_agreement=limits.top1_agreement,
        reference_accuracy=0.9,
        accuracy=0.9,
    )
    report = Report(path="x", format="tflite", dtype=dtype, size=1, agreements=(good,), limits=limits)
    assert report.passed
    bad = dataclasses.replace(good, relative_error=0.6, top1_agreement=0.9, accuracy=0.89)
    failures = dataclasses.replace(report, agreements=(bad,)).failures
    assert len(failures) == (2 if limits.relative_error is None else 3)


# Half precision.


def test_headroom_of_file_and_model_agree_with_the_sum(model, files, rng):
    images = rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    of_model = headroom_of_model(model, {"images": images})
    of_file = headroom_of_tflite(files["tflite"], read_tflite(files["tflite"]), {"images": images})
    assert [entry.positions for entry in of_model] == [1024, 256, 64, 64]
    np.testing.assert_allclose(
        [entry.largest_sum for entry in of_file], [entry.largest_sum for entry in of_model], rtol=1e-4
    )
    features = keras.Model(model.input, model.get_layer("pooled").input)(images)
    assert of_model[-1].largest_sum == pytest.approx(np.max(np.sum(features, (1, 2))), rel=1e-5)
    assert of_model[-1].ratio == pytest.approx(LARGEST_HALF / of_model[-1].largest_sum)


def test_overflowing_squeeze_fails_for_gpus_only(tmp_path):
    inputs = keras.Input((64, 64, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    path = export.tflite(model, tmp_path / "mean.tflite")
    images = np.full((1, 64, 64, 3), 100, "float32")
    report = export.verify(path, model, data=images, **QUICK)
    assert report.passed
    assert report.headrooms[0].largest_sum == pytest.approx(64 * 64 * 100)
    strict = export.verify(path, model, data=images, targets=["gpu"], **QUICK)
    assert "65,504" in strict.failures[0]


def test_average_pools_are_squeezes_too(tmp_path):
    inputs = keras.Input((16, 16, 2))
    model = keras.Model(inputs, keras.layers.AveragePooling2D(8)(inputs))
    path = export.tflite(model, tmp_path / "pool.tflite")
    images = np.zeros((1, 16, 16, 2), "float32")
    images[0, :8, :8, 1] = 3
    images[0, 8:, 8:, 0] = -2
    (entry,) = headroom_of_tflite(path, read_tflite(path), {"images": images})
    assert (entry.positions, entry.largest_sum) == (64, 192)


# Processes and GPUs.


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tflite", "keras", pytest.param("saved_model", marks=pytest.mark.slow)])
def test_worker_answers_as_the_runner_does(kind, files):
    images = random_images((32, 32, 3), 3)
    with Worker(files[kind]) as worker:
        found, expected = (one.run({"images": images}) for one in (worker, open_runner(files[kind])))
        np.testing.assert_allclose(*(next(iter(one.values())) for one in (found, expected)), rtol=1e-4, atol=1e-7)
        assert worker.time(2) > 0
        assert worker.peak_memory() > 1e6


@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory_that_was_freed_before_the_model_is_opened_does_not_hide_its_own():
    block = np.ones(2**25)  # 256 MiB
    highest = worker._memory()
    del block
    worker._forget_peak()
    before = worker._memory()
    assert before < highest - 2**27
    block = np.ones(2**23)
    assert worker._memory() - before == pytest.approx(block.nbytes, rel=0.1)


def test_worker_says_why_it_refuses(files, tmp_path):
    path = tmp_path / "half.tflite"
    path.write_bytes(files["tflite"].read_bytes()[:5000])
    with pytest.raises(RuntimeRefusedError, match="LiteRT CPU refuses the model: "):
        Worker(path)
    with Worker(files["tflite"]) as worker, pytest.raises(RuntimeRefusedError, match="refuses the model"):
        worker.run({"images": np.zeros((1, 5, 5, 3), "float32")})


@pytest.mark.usefixtures("gpu")
def test_gpu_runs_every_operation_and_agrees(model, files):
    report = export.verify(files["tflite"], model, targets=["gpu"], gpu_images=2, repeats=0)
    assert report.gpu == "resident"
    assert report.passed, report.failures
    assert [agreement.runtime for agreement in report.agreements] == ["tflite", "tflite_gpu"]


@pytest.mark.usefixtures("gpu")
def test_gpu_refuses_what_it_does_not_run(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Activation("log_softmax")(inputs))
    path = export.tflite(model, tmp_path / "model.tflite")
    report = export.verify(path, model, targets=["gpu"], repeats=0)
    assert "LiteRT GPU refuses the model" in report.gpu
    assert any("LOG_SOFTMAX" in failure for failure in report.failures)


@pytest.mark.parametrize(
    ("installed", "named", "variables"),
    [
        (False, None, {"VK_DRIVER_FILES", "VK_ICD_FILENAMES"}),
        (True, None, {"VK_ADD_DRIVER_FILES"}),  # Mesa's drivers are installed with the loader, with or without a GPU
        (True, "VK_DRIVER_FILES", set()),
        (True, "VK_ADD_DRIVER_FILES", set()),
    ],
)
def test_software_driver_stands_in_where_no_gpu_is_found(installed, named, variables, tmp_path, monkeypatch):
    driver = tmp_path / "software.json"
    driver.touch()
    monkeypatch.setattr(process, "SOFTWARE_DRIVERS", ("/nowhere.json", str(driver)))
    monkeypatch.setattr(process, "DRIVER_FOLDERS", (tmp_path if installed else tmp_path / "none",))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in (*process.DRIVER_VARIABLES, process.FURTHER_DRIVERS):
        monkeypatch.delenv(name, raising=False)
    if named:
        monkeypatch.setenv(named, "/mine.json")
    assert process.gpu_environment(tmp_path) == dict.fromkeys(variables, str(driver))


def test_missing_driver_is_said_and_not_failed(model, files, monkeypatch):
    monkeypatch.setenv("VK_DRIVER_FILES", "/nowhere.json")
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nowhere.json")
    report = export.verify(files["tflite"], model, repeats=0)
    assert report.passed
    assert report.gpu == ""
    assert any("neither a GPU nor a software driver" in note for note in report.notes)
