"""The first layers of networks with swishes, which 8-bit files of all formats compute in float."""

import re

import keras
import numpy as np
import pytest
from small_networks import shortened

from se_keras import export
from se_keras.export.first_layers import Kind, Step, first_layers
from se_keras.export.inspect_tflite import RIM, read_tflite

SIZE = 32


def chain(text):
    """Returns steps in a chain from their words: a number is a convolution with as many weights."""
    kinds = {"swish": Kind.SWISH, "+": Kind.SIMPLE, "*": Kind.PRODUCT, "sigmoid": Kind.SIGMOID, "dense": Kind.DENSE}

    def step(place, word):
        kind = Kind.CONVOLUTION if word.isdigit() else kinds.get(word, Kind.OTHER)
        weights = int(word) if word.isdigit() else 9
        return Step(str(place), kind, weights, (str(place - 1),))

    return [step(place, word) for place, word in enumerate(text.split())]


REST = " 90 swish 90 90" * 5


@pytest.mark.parametrize(
    ("network", "count"),
    [
        ("+ * 27 swish 9 mean 8 8 sigmoid * 27" + REST, 11),  # a stem and a first block, with its gates
        ("27 swish 28 swish" + REST, 2),
        ("+ 8 swish 8 8 8", 3),  # at most a quarter of the layers
        ("8 swish 8 8", 0),
        ("8 + 8 swish" + REST, 0),
        ("8 sigmoid" + REST, 0),
        ("8 sigmoid *" + REST, 0),  # the product of the sigmoid and something else
        ("embedding 8 swish" + REST, 0),
        ("dense swish dense swish dense swish dense", 0),
        ("+ +", 0),
        ("", 0),
    ],
)
def test_first_layers_end_before_one_with_more_weights_than_the_stem(network, count):
    assert first_layers(chain(network)) == [str(place) for place in range(count)]


@pytest.mark.parametrize("turned", [False, True])
def test_a_swish_may_be_a_product_with_a_sigmoid(turned):
    both = ("0", "1")[:: -1 if turned else 1]
    swish = [Step("1", Kind.SIGMOID, 0, ("0",)), Step("2", Kind.PRODUCT, 0, both)]
    steps = [*chain("8"), *swish, *chain("9 9 9")]
    assert first_layers(steps) == ["0", "1", "2"]


def test_a_convolution_whose_weights_are_computed_is_no_stem():
    first, *others = chain("8 swish 9 9 9")
    assert first_layers([first, *others]) == ["0", "1"]
    assert first_layers([first._replace(weights=0), *others]) == []


@pytest.fixture(scope="module")
def networks():
    """Networks of few blocks, with hard swishes and with swishes."""
    keras.utils.set_random_seed(0)
    return {name: shortened(name, input_shape=(SIZE, SIZE, 3), classes=5) for name in COUNTS}


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(0).uniform(0, 255, (100, SIZE, SIZE, 3)).astype("float32")


def tflite_layers(path):
    operations = [one for one in read_tflite(path).operations if one.name not in RIM]
    layers = [place for place, one in enumerate(operations) if one.name in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    between = zip(layers, [*layers[1:], len(operations)], strict=True)
    return [{one.outputs[0].dtype for one in operations[start:end]} == {"FLOAT32"} for start, end in between]


def onnx_layers(path):
    graph = pytest.importorskip("onnx", reason="needs the extra 'onnx'").load(path).graph
    computed = {name: node.op_type for node in graph.node for name in node.output}
    layers = [node for node in graph.node if node.op_type == "Conv"]
    return ["DequantizeLinear" not in {computed.get(name) for name in node.input[:2]} for node in layers]


def openvino_layers(path):
    def is_quantized(value):
        node = value.get_node()
        if node.get_type_name() in ("Convert", "Multiply", "Reshape", "Subtract", "Transpose"):
            return node.get_type_name() == "Subtract" or is_quantized(node.input_value(0))
        return node.get_type_name() == "FakeQuantize" or node.get_element_type().to_string() in ("i8", "u8")

    openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")
    operations = openvino.Core().read_model(path).get_ordered_ops()
    layers = [one for one in operations if one.get_type_name() in ("Convolution", "GroupConvolution")]
    return [not any(is_quantized(value) for value in one.input_values()) for one in layers]


FORMATS = {
    "tflite": (export.tflite, "m.tflite", tflite_layers),
    "onnx": (export.onnx, "m.onnx", onnx_layers),
    "openvino": (export.openvino, "m.xml", openvino_layers),
}
PACKAGES = {"tflite": "tensorflow", "onnx": "onnxruntime", "openvino": "nncf"}
COUNTS = {"mobilenetv3_small_050": 7, "tinynet_e": 9}
"""Convolutions up to one with more weights than the first, and a quarter of all layers."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "form"),
    [
        *(("mobilenetv3_small_050", form) for form in FORMATS),
        *(("tinynet_e", form) for form in ("onnx", "openvino")),  # test_keep_float.py has a .tflite graph with swishes
    ],
)
def test_every_format_keeps_the_first_layers_of_mobile_networks_in_float(name, form, networks, photos, tmp_path):
    pytest.importorskip(PACKAGES[form], reason=f"needs the extra {form!r}")
    write, file, layers = FORMATS[form]
    found = layers(write(networks[name], tmp_path / file, dtype="int8", data=photos, verbose=0))
    assert found == [True] * COUNTS[name] + [False] * (len(found) - COUNTS[name])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_list_quantizes_the_first_layers(form, networks, photos, tmp_path):
    pytest.importorskip(PACKAGES[form], reason=f"needs the extra {form!r}")
    write, file, layers = FORMATS[form]
    path = write(
        networks["mobilenetv3_small_050"], tmp_path / file, dtype="int8", data=photos, keep_float=[], verbose=0
    )
    assert not any(layers(path))


@pytest.mark.parametrize("write", [export.onnx, export.openvino])
def test_only_tflite_files_keep_layers_by_name(write, tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    path = tmp_path / ("a.onnx" if write is export.onnx else "a.xml")
    for wrong in (["stem"], "auto", False):
        with pytest.raises(ValueError, match=re.escape(f"must be None or an empty list; received {wrong!r}.")):
            write(model, path, dtype="int8", data=np.zeros((1, 4)), keep_float=wrong)
    with pytest.raises(ValueError, match="`keep_float` requires dtype='int8'; received dtype='fp16'"):
        write(model, path, dtype="fp16", keep_float=[])
