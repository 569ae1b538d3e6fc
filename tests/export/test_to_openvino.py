"""OpenVINO: names, batch size, information, and the same answers in its runtime; skipped without the extra."""

import json
import os
import sys

import keras
import numpy as np
import pytest
from small_networks import answers

import se_keras
from se_keras import export
from se_keras.export.openvino_graph import simplify
from se_keras.export.openvino_runtime import OpenVinoRunner, read_openvino, stored_information
from se_keras.export.structure import size_of, structure_of
from se_keras.training.sources import load_sample

openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")

NAMES = [f"class {number}" for number in range(10)]


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return export.openvino(model, tmp_path_factory.mktemp("openvino") / "model.xml", class_names=NAMES)


def test_file_passes_in_its_own_runtime(model, file, rng):
    images = rng.uniform(0, 255, (5, 32, 32, 3)).astype("float32")
    report = export.verify(file, model, data=images, labels=[0, 1, 2, 3, 4], repeats=2)
    assert report.passed, report.failures
    assert report.agreements[1].relative_error < 1e-5
    assert report.agreements[1].runtime == "openvino"
    assert report.speeds[0].median > 0
    assert report.size == file.stat().st_size + file.with_suffix(".bin").stat().st_size


def test_names_batch_and_information(file):
    structure = structure_of(file)
    assert (structure.format, structure.dtype) == ("openvino", "fp32")
    assert structure.inputs == ("images (1, 32, 32, 3) float32",)
    assert structure.outputs == ("output_0 (1, 10) float32",)
    found = stored_information(read_openvino(file))
    assert json.loads(found["class_names"]) == NAMES
    assert json.loads(found["input"])["height"] == 32
    assert (found["output"], found["dtype"]) == ("probabilities", "fp32")
    runner = OpenVinoRunner(file)
    assert runner.kind == "probabilities"
    assert runner(np.full((33, 32, 32, 3), 128, "float32")).shape == (33, 10)


@pytest.mark.parametrize(("size", "stated"), [(None, "any"), (3, "3")])
def test_batch_size_is_what_was_asked_for(model, size, stated, tmp_path, rng):
    path = export.openvino(model, tmp_path / "model.xml", batch_size=size)
    assert structure_of(path).inputs == (f"images ({stated}, 32, 32, 3) float32",)
    images = rng.uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(OpenVinoRunner(path)(images), expected, rtol=0, atol=1e-5)


def test_batch_size_of_a_file_can_be_changed(model, file, rng):
    import openvino

    network = read_openvino(file)
    network.reshape([2, 32, 32, 3])
    images = rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    found = openvino.compile_model(network, "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})(images)["output_0"]
    np.testing.assert_allclose(found, model.predict(images, verbose=0), rtol=0, atol=1e-5)


def test_batch_size_is_checked(model, tmp_path):
    with pytest.raises(ValueError, match="`batch_size` must be"):
        export.openvino(model, tmp_path / "model.xml", batch_size=0)


def test_hoisted_network_keeps_one_convolution_a_layer(grouped, tmp_path):
    path = export.openvino(grouped, tmp_path / "model.xml")
    operations = structure_of(path).operations
    convolutions = [layer for layer in grouped.layers if type(layer).__name__ in ("Conv2D", "GroupedConv2D")]
    excitations = [layer for layer in grouped.layers if isinstance(layer, se_keras.SqueezeExcite)]
    found = operations["Convolution"] + operations["GroupConvolution"]
    assert found == len(convolutions) + 2 * len(excitations)
    assert operations["ReduceMean"] == len(excitations) + 1
    assert operations["Transpose"] == 2  # of the image, and of the last map


def test_the_map_that_gates_multiply_is_squeezed_itself_in_8_bits(tmp_path, rng):
    pytest.importorskip("nncf", reason="needs the extra 'openvino'")
    layers = [keras.layers.Conv2D(8, 1), se_keras.SqueezeExcite(reduction=4), keras.layers.Conv2D(4, 1)]
    network = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    images = rng.normal(size=(100, 8, 8, 3)).astype("float32")
    file = read_openvino(export.openvino(network, tmp_path / "model.xml", dtype="int8", data=images, verbose=0))
    (squeeze,) = [one for one in file.get_ops() if one.get_type_name() == "ReduceMean"]
    readers = {one.get_node().get_type_name() for one in squeeze.input_value(0).get_target_inputs()}
    assert readers == {"ReduceMean", "Multiply"}
    assert squeeze.input_value(0).get_partial_shape()[1] == 8  # channels: the narrow input of the convolution has 3


def with_ends(make):
    """Returns a model of images of 2 channels, whose last layers `make` adds to their transposition."""
    ops = openvino.opset13
    images = ops.parameter([-1, 6, 6, 2], np.float32)
    last = make(ops.transpose(images, [0, 3, 1, 2]))
    last.output(0).set_names({"last"})
    return openvino.Model([last.output(0)], [images])


def padded(tensor, value=0.0, sizes=(0, 1), kernel=(3, 3), dilation=1, rounding="floor"):
    ops = openvino.opset13
    begin, end = ([0, 0, size, size] for size in sizes)
    map_ = ops.pad(tensor, begin, end, "constant", np.float32(value))
    return ops.max_pool(map_, [2, 2], [dilation] * 2, [0, 0], [0, 0], kernel, rounding, "explicit")


def scaled(tensor):
    ops = openvino.opset13
    mean = np.array([1, 2], "float32").reshape(1, 2, 1, 1)
    return ops.multiply(ops.subtract(tensor, mean), np.float32(0.5))


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda x: padded(openvino.opset13.relu(x)), ["Relu", "MaxPool"]),
        (lambda x: padded(openvino.opset13.relu(x), sizes=(1, 1)), ["Relu", "MaxPool"]),
        (lambda x: padded(openvino.opset13.relu(x), sizes=(1, 2), kernel=(2, 2)), ["Relu", "Pad", "MaxPool"]),
        (lambda x: padded(openvino.opset13.relu(x), value=1.0), ["Relu", "Pad", "MaxPool"]),
        (lambda x: padded(openvino.opset13.relu(x), dilation=2), ["Relu", "Pad", "MaxPool"]),
        (lambda x: padded(openvino.opset13.relu(x), rounding="ceil"), ["Relu", "Pad", "MaxPool"]),
        (lambda x: padded(openvino.opset13.clamp(x, 0, 6)), ["Clamp", "MaxPool"]),
        (lambda x: padded(openvino.opset13.clamp(x, -1, 6)), ["Clamp", "Pad", "MaxPool"]),
        (padded, ["Pad", "MaxPool"]),
    ],
)
def test_a_padding_with_zeros_is_merged_into_the_pooling_of_values_that_are_never_negative(make, left, rng):
    model = with_ends(make)
    images = rng.normal(size=(2, 6, 6, 2)).astype("float32")
    expected = openvino.Core().compile_model(model, "CPU")(images)[0]
    simplify(model)
    found = [one.get_type_name() for one in model.get_ordered_ops()]
    assert [name for name in found if name in ("Clamp", "Relu", "Pad", "MaxPool")] == left
    np.testing.assert_array_equal(openvino.Core().compile_model(model, "CPU")(images)["last"], expected)


def test_images_are_normalized_before_their_transposition(rng):
    model = with_ends(scaled)
    images = rng.normal(size=(2, 6, 6, 2)).astype("float32")
    simplify(model)
    kinds = [one.get_type_name() for one in model.get_ordered_ops()]
    assert [kind for kind in kinds if kind != "Constant"] == [
        "Parameter",
        "Subtract",
        "Multiply",
        "Transpose",
        "Result",
    ]
    found = openvino.Core().compile_model(model, "CPU")(images)["last"]
    np.testing.assert_allclose(found, (images.transpose(0, 3, 1, 2) - [[[1]], [[2]]]) / 2, rtol=1e-6)


def test_a_written_network_normalizes_images_before_their_transposition(file):
    network = read_openvino(file)
    kinds = [one.get_type_name() for one in network.get_ordered_ops() if one.get_type_name() != "Constant"]
    assert kinds[0] == "Parameter"
    assert kinds.index("Transpose") == 2  # after the mean is subtracted; the scale is in the kernel


@pytest.mark.parametrize(
    "make",
    [
        lambda x: openvino.opset13.add(x, x),
        openvino.opset13.relu,
        lambda x: openvino.opset13.add(x, np.ones((1, 1, 1, 1, 1), "float32")),  # the sum has five axes
    ],
)
def test_a_transposition_stays_before_operations_without_constants_of_its_axes(make):
    model = with_ends(make)
    simplify(model)
    kinds = [one.get_type_name() for one in model.get_ordered_ops() if one.get_type_name() != "Constant"]
    assert kinds[:2] == ["Parameter", "Transpose"]


def test_half_precision_file_is_half_as_large(model, file, tmp_path):
    path = export.openvino(model, tmp_path / "half.xml", dtype="fp16")
    assert structure_of(path).dtype == "fp16"
    assert size_of(path.with_suffix(".bin")) < 0.6 * size_of(file.with_suffix(".bin"))
    assert export.verify(path, model, repeats=0).passed


@pytest.mark.parametrize(("package", "options"), [("openvino", {}), ("nncf", {"dtype": "int8"})])
def test_a_missing_package_names_the_extra(package, options, model, tmp_path, monkeypatch, rng):
    monkeypatch.setitem(sys.modules, package, None)
    data = rng.integers(0, 256, (100, 32, 32, 3))
    with pytest.raises(ImportError, match=rf"needs the package '{package}'.*se_keras\[openvino\]"):
        export.openvino(model, tmp_path / "model.xml", data=data, **options)
    assert os.listdir(tmp_path) == []


def test_damaged_files_are_named(file, tmp_path):
    path = tmp_path / "model.xml"
    path.write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"weights of .*model\.xml' are missing"):
        export.verify(path)
    path.with_suffix(".bin").write_bytes(file.with_suffix(".bin").read_bytes())
    path.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"model\.xml' is damaged"):
        export.verify(path)


@pytest.mark.slow
def test_bundled_network_keeps_its_classes_in_8_bits(tmp_path, capfd):
    pytest.importorskip("nncf", reason="needs the extra 'openvino'")
    model, sample = se_keras.create_model("se_resnet20", weights="cifar10"), load_sample()
    path = export.openvino(model, tmp_path / "model.xml", dtype="int8", data=sample.x_train[:200], verbose=0)
    assert capfd.readouterr() == ("", "")
    assert structure_of(path).dtype == "int8"
    expected = answers(model, sample.x_test.astype("float32"))
    found = OpenVinoRunner(path)(sample.x_test)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.98  # 98.2 % measured
    assert size_of(path.with_suffix(".bin")) < 0.3 * model.count_params() * 4
