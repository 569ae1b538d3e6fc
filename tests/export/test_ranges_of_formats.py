"""The ranges of activations in 8-bit ONNX and OpenVINO models."""

import logging

import keras
import numpy as np
import pytest
from keras import layers

from se_keras import export
from se_keras.export.onnx_ranges import onnx_ranges
from se_keras.export.openvino_ranges import LEVELS, signed_or_unsigned, with_exact_zero
from se_keras.export.runtime import open_runner

onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")


@pytest.fixture
def images():
    """Uniform values, far below -3 for the most part."""
    return np.random.default_rng(0).uniform(-40, 6, (20, 8, 8, 2)).astype("float32")


def test_onnx_ranges_know_what_reads_a_tensor_and_leave_those_of_outputs_alone(images):
    make = onnx.helper
    nodes = [
        make.make_node("Mul", ["images", "two"], ["doubled"]),
        make.make_node("HardSwish", ["doubled"], ["active"]),
        make.make_node("Neg", ["active"], ["last"]),
        make.make_node("Identity", ["last"], ["output_0"]),
    ]
    shape, float32 = ["batch", 8, 8, 2], onnx.TensorProto.FLOAT
    ends = [make.make_tensor_value_info(name, float32, shape) for name in ("images", "output_0")]
    two = make.make_tensor("two", float32, [], [2.0])
    graph = make.make_graph(nodes, "small", ends[:1], ends[1:], [two])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=8)
    found, of_all = onnx_ranges(onnx.shape_inference.infer_shapes(model), {"images": images})
    assert of_all["doubled"] == pytest.approx((2 * images.min(), 2 * images.max()))
    assert found.keys() == {"images", "doubled", "active", "last", "output_0"}
    assert found["output_0"] == of_all["output_0"] == found["last"]
    assert found["images"] == (images.min(), images.max())
    assert -6 < found["doubled"][0] <= -2
    assert found["doubled"][1] == pytest.approx(2 * images.max(), rel=0.25)
    assert found["last"] == pytest.approx((-2 * images.max(), 0.375), abs=0.01)


@pytest.mark.parametrize("fitted", [signed_or_unsigned, with_exact_zero])
@pytest.mark.parametrize(("low", "high"), [(0.35, 0.44), (-3.0, -1.0), (-1.0, 5.0), (2.0, 2.0), (-4.0, 4.0)])
def test_openvino_ranges_contain_zero_on_a_level(fitted, low, high):
    start, end = fitted(low, high)
    step = (end - start) / (LEVELS - 1)
    assert start <= min(low, 0) + step / 2
    assert end >= max(high, 0) - step / 2
    assert -start / step == pytest.approx(round(-start / step), abs=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.35, 0.44), (-3.0, -1.0), (-1.0, 5.0), (2.0, 2.0)])
def test_asymmetric_openvino_ranges_are_no_wider_than_necessary(low, high):
    start, end = with_exact_zero(low, high)
    assert start <= 0 <= end
    assert end - start == pytest.approx(max(high, 0) - min(low, 0))


def test_openvino_ranges_are_of_unsigned_or_signed_bytes():
    assert signed_or_unsigned(0.35, 0.44) == (0, 0.44)
    assert signed_or_unsigned(-1.0, 5.0) == pytest.approx((-5 * 128 / 127, 5))
    assert signed_or_unsigned(-5.0, 1.0) == pytest.approx((-5, 5 * 127 / 128))


def gated(openvino):
    """Returns a model with a hard swish, an SE block, and two convolutions; no reference to a part of it is left."""
    ops, rng = openvino.opset13, np.random.default_rng(0)

    def convolution(tensor, channels):
        kernel = rng.normal(size=(4, channels, 1, 1)).astype("f4")
        return ops.convolution(tensor, kernel, [1, 1], *[[0, 0]] * 2, [1, 1])

    x = ops.parameter([-1, 8, 8, 2], np.float32)
    x.output(0).set_names({"images"})
    first = convolution(ops.transpose(x, [0, 3, 1, 2]), 2)
    active = ops.multiply(first, ops.divide(ops.clamp(ops.add(first, np.float32(3)), 0, 6), np.float32(6)))
    gates = ops.sigmoid(convolution(ops.reduce_mean(active, [2, 3], keep_dims=True), 4))
    return openvino.Model([convolution(convolution(ops.multiply(active, gates), 4), 4)], [x])


def bounds_of(quantized):
    """Returns the ranges of 8-bit tensors by the kind of the operation that computes them."""
    steps = [one for one in quantized.get_ops() if one.get_type_name() == "FakeQuantize"]
    return {
        one.input_value(0).get_node().get_type_name(): tuple(
            float(one.input_value(place).get_node().data.item()) for place in (1, 2)
        )
        for one in steps
    }


def test_openvino_leaves_the_level_of_nncfs_logger_as_it_is(images, monkeypatch):
    openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")
    pytest.importorskip("nncf", reason="needs the extra 'openvino'")
    from se_keras.export.openvino_int8 import quantized_to_8_bits

    logger = logging.getLogger("nncf")
    monkeypatch.setattr(logger, "level", logging.INFO)
    quantized_to_8_bits(gated(openvino), {"images": images}, [])
    assert logger.level == logging.INFO
    assert not logger.filters


def test_openvino_never_clips_inputs(images, monkeypatch):
    openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")
    pytest.importorskip("nncf", reason="needs the extra 'openvino'")
    from se_keras.export import openvino_ranges
    from se_keras.export.openvino_int8 import quantized_to_8_bits

    monkeypatch.setattr(openvino_ranges, "closest", lambda choices, *_: choices[0])  # those that clip
    images = np.random.default_rng(0).normal(size=images.shape).astype("float32")
    images[7] *= 100  # a hundred times as bright as the others
    bounds = bounds_of(quantized_to_8_bits(gated(openvino), {"images": images}, []))
    assert bounds["Parameter"][1] >= 0.99 * np.abs(images).max()
    assert bounds["HSwish"][1] < 0.5 * np.abs(images).max()


def test_openvino_keeps_a_hard_swish_in_one_piece_and_symmetric_ranges_away_from_gates(images):
    openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")
    pytest.importorskip("nncf", reason="needs the extra 'openvino'")
    from se_keras.export.openvino_int8 import quantized_to_8_bits

    model = gated(openvino)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = compiled(images)[0]
    quantized = quantized_to_8_bits(model, {"images": images}, [])
    assert "HSwish" in {one.get_type_name() for one in quantized.get_ops()}
    bounds = bounds_of(quantized)
    assert -0.5 < bounds["HSwish"][0] < -0.3
    assert -0.5 < bounds["Multiply"][0] < 0
    for low, high in (bounds["HSwish"], bounds["Multiply"]):
        step = (high - low) / 255
        assert low / step == pytest.approx(round(low / step), abs=1e-3)
    low, high = bounds["Convolution"]
    assert low == pytest.approx(-128 / 127 * high)
    assert bounds["Sigmoid"][0] == 0
    found = openvino.Core().compile_model(quantized, "CPU")(images)[0]
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def with_outputs(kind):
    """Returns a network whose outputs are scores, a map, or both; none ends with an activation."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3), name="images")
    features = layers.Conv2D(8, 3, padding="same", activation="relu")(images)
    found = {"map": layers.Conv2D(2, 1, name="map")(features)}
    found["scores"] = layers.Dense(4, name="scores")(layers.GlobalAveragePooling2D()(features))
    return keras.Model(images, found if kind == "both" else found[kind])


@pytest.mark.parametrize("kind", ["scores", "map", pytest.param("both", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("write", "suffix", "package"),
    [(export.tflite, ".tflite", "tensorflow"), (export.onnx, ".onnx", "tf2onnx"), (export.openvino, ".xml", "nncf")],
    ids=["tflite", "onnx", "openvino"],
)
def test_outputs_are_not_clipped_to_those_of_the_first_image(kind, write, suffix, package, tmp_path):
    pytest.importorskip(package)
    model = with_outputs(kind)
    images = np.random.default_rng(0).uniform(0, 255, (100, 8, 8, 3)).astype("float32")
    images[0] *= 0.05
    runner = open_runner(write(model, tmp_path / f"model{suffix}", dtype="int8", data=images, verbose=0))
    expected = model(images)
    outputs = runner.run({"images": images})
    names = dict(zip(sorted(expected), sorted(outputs), strict=True)) if kind == "both" else {None: runner.answer}
    for name, found in names.items():
        values = keras.ops.convert_to_numpy(expected if name is None else expected[name])
        assert np.abs(outputs[found] - values).max() < 0.05 * np.abs(values).max()
