"""The ranges of activations in 8-bit ONNX and OpenVINO models."""

import numpy as np
import pytest

from se_keras.export.onnx_ranges import onnx_ranges
from se_keras.export.openvino_ranges import LEVELS, with_exact_zero

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
    of_all, found = onnx_ranges(onnx.shape_inference.infer_shapes(model), {"images": images})
    assert of_all["doubled"] == pytest.approx((2 * images.min(), 2 * images.max()))
    assert found.keys() == {"images", "doubled", "active", "last"}
    assert found["images"] == (images.min(), images.max())
    assert -6 < found["doubled"][0] <= -2
    assert found["doubled"][1] == pytest.approx(2 * images.max(), rel=0.25)
    assert found["last"] == pytest.approx((-2 * images.max(), 0.375), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("low", "high"), [(0.35, 0.44), (-3.0, -1.0), (-1.0, 5.0), (2.0, 2.0)])
def test_openvino_ranges_contain_zero_on_a_level(low, high):
    start, end = with_exact_zero(low, high)
    assert start <= 0 <= end
    assert end - start == pytest.approx(max(high, 0) - min(low, 0))
    zero = -start / (end - start) * (LEVELS - 1)
    assert zero == pytest.approx(round(zero), abs=1e-6)


def test_openvino_keeps_a_hard_swish_in_one_piece_and_spends_few_steps_below_zero(images):
    openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")
    pytest.importorskip("nncf", reason="needs the extra 'openvino'")
    from se_keras.export.openvino_int8 import quantized_to_8_bits

    ops, rng = openvino.opset13, np.random.default_rng(0)
    x = ops.parameter([-1, 8, 8, 2], np.float32)
    x.output(0).set_names({"images"})
    first = ops.convolution(
        ops.transpose(x, [0, 3, 1, 2]), rng.normal(size=(4, 2, 1, 1)).astype("f4"), [1, 1], *[[0, 0]] * 2, [1, 1]
    )
    gate = ops.divide(ops.clamp(ops.add(first, np.float32(3)), 0, 6), np.float32(6))
    second = ops.convolution(
        ops.multiply(first, gate), rng.normal(size=(4, 4, 1, 1)).astype("f4"), [1, 1], *[[0, 0]] * 2, [1, 1]
    )
    model = openvino.Model([second], [x])
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = compiled(images)[0]
    quantized = quantized_to_8_bits(model, {"images": images})
    operations = {one.get_type_name(): one for one in quantized.get_ops()}
    assert "HSwish" in operations
    steps = [one for one in quantized.get_ops() if one.get_type_name() == "FakeQuantize"]
    (after,) = [one for one in steps if one.input_value(0).get_node().get_type_name() == "HSwish"]
    low, high = (float(after.input_value(place).get_node().data) for place in (1, 2))
    assert -0.5 < low < -0.3
    assert low / ((high - low) / 255) == pytest.approx(round(low / ((high - low) / 255)), abs=1e-3)
    found = openvino.Core().compile_model(quantized, "CPU")(images)[0]
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
