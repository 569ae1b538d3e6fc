"""ONNX: names, dynamic batch, operation sets, and the same answers in ONNX Runtime; skipped without the extra."""

import collections
import gc
import importlib.util
import json
import os
import re
import sys

import keras
import numpy as np
import pytest
from keras import layers
from small_networks import answers, shortened

import se_keras
from se_keras import export
from se_keras.export import to_onnx
from se_keras.export.structure import structure_of
from se_keras.export.to_onnx import OPSET, ROUTES
from se_keras.training.sources import load_sample

onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")
pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
if keras.backend.backend() == "tensorflow":
    pytest.importorskip("tf2onnx", reason="needs the extra 'onnx'")


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return export.onnx(model, tmp_path_factory.mktemp("onnx") / "model.onnx")


def test_file_passes_in_its_own_runtime(model, file, rng):
    images = rng.uniform(0, 255, (5, 32, 32, 3)).astype("float32")
    report = export.verify(file, model, data=images, labels=[0, 1, 2, 3, 4], repeats=2)
    assert report.passed, report.failures
    assert report.agreements[1].relative_error < 1e-5
    assert report.agreements[1].runtime == "onnx"
    assert report.speeds[0].median > 0
    assert len(report.headrooms) == 4


def test_names_batch_and_operation_set(file):
    structure = structure_of(file)
    assert structure.inputs == ("images (any, 32, 32, 3) float32",)
    assert structure.outputs == ("output_0 (any, 10) float32",)
    assert structure.opset == OPSET
    assert structure.refusals == ()
    assert structure.dtype == "fp32"
    onnx.checker.check_model(os.fspath(file))
    assert onnx.load(file).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.slow
def test_nothing_but_one_operation_a_layer_is_left(grouped, tmp_path):
    path = export.onnx(grouped, tmp_path / "model.onnx", class_names=["a", "b", "c", "d", "e"])
    content = onnx.load(path)
    counts = collections.Counter(node.op_type for node in content.graph.node)
    convolutions = [layer for layer in grouped.layers if type(layer).__name__ in ("Conv2D", "GroupedConv2D")]
    excitations = [layer for layer in grouped.layers if isinstance(layer, se_keras.SqueezeExcite)]
    assert counts["Conv"] == len(convolutions) + 2 * len(excitations)
    assert counts["GlobalAveragePool"] == len(excitations) + 1
    assert counts["Sigmoid"] == counts["Mul"] == counts["Add"] - 1 == len(excitations)  # and the mean of the pixels
    assert not {"Reshape", "Pad", "ReduceMean", "Squeeze"} & set(counts)  # the stem's pooling pads by itself
    assert content.graph.node[0].op_type == "Transpose"  # before the normalization
    assert counts["Transpose"] == 1
    assert {entry.domain for entry in content.opset_import} == {""}
    onnx.checker.check_model(content)
    found = {entry.key: entry.value for entry in content.metadata_props}
    assert json.loads(found["class_names"]) == ["a", "b", "c", "d", "e"]
    assert json.loads(found["input"])["height"] == 64
    assert found["output"] == "probabilities"


def test_padding_of_negative_values_stays(tmp_path):
    images = keras.Input((8, 8, 2))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.Rescaling(-1.0)(images)))
    path = export.onnx(keras.Model(images, x), tmp_path / "model.onnx")
    assert "Pad" in structure_of(path).operations


def test_hard_sigmoids_are_one_operation(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1)(inputs)
    gates = layers.Activation("hard_sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    outputs = layers.Activation("hard_silu")(x) * gates + keras.ops.relu6(x + 2) / 6  # the last is none
    path = export.onnx(keras.Model(inputs, outputs), tmp_path / "model.onnx")  # which compares the answers
    counts = collections.Counter(node.op_type for node in onnx.load(path).graph.node)
    assert (counts["HardSigmoid"], counts["Clip"]) == (2, 1)


def test_half_precision_file_is_half_as_large(model, file, tmp_path):
    path = export.onnx(model, tmp_path / "half.onnx", dtype="fp16")
    structure = structure_of(path)
    assert structure.dtype == "fp16"
    assert structure.inputs == structure_of(file).inputs
    assert path.stat().st_size < 0.6 * file.stat().st_size
    assert export.verify(path, model, repeats=0).passed


@pytest.mark.slow
def test_8_bit_file_is_quantized_per_channel(model, file, tmp_path, rng):
    images = rng.integers(0, 256, (120, 32, 32, 3))
    path = export.onnx(model, tmp_path / "int8.onnx", dtype="int8", data=images)
    structure = structure_of(path)
    assert structure.dtype == "int8"
    assert structure.inputs == structure_of(file).inputs
    assert path.stat().st_size < 0.6 * file.stat().st_size
    content = onnx.load(path)
    kernels = [tensor for tensor in content.graph.initializer if len(tensor.dims) == 4]
    assert {tensor.data_type for tensor in kernels if "quantized" in tensor.name} == {onnx.TensorProto.INT8}
    scales = {tensor.name: list(tensor.dims) for tensor in content.graph.initializer if tensor.name.endswith("_scale")}
    assert [16] in scales.values()
    first = next(node for node in content.graph.node if node.op_type == "QuantizeLinear")
    assert first.input[0] != "images"  # the normalization is in float
    found, expected = export.runtime.open_runner(path)(images[:20]), answers(model, images[:20].astype("float32"))
    assert np.abs(found - expected).max() < 0.05


@pytest.mark.slow
def test_bundled_network_keeps_its_classes_in_8_bits(tmp_path):
    model, sample = se_keras.create_model("se_resnet20", weights="cifar10"), load_sample()
    path = export.onnx(model, tmp_path / "model.onnx", dtype="int8", data=sample.x_train[:200])
    expected = answers(model, sample.x_test.astype("float32"))
    found = export.runtime.open_runner(path)(sample.x_test)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.98
    assert path.stat().st_size < 0.5 * model.count_params() * 4


def test_8_bits_need_an_operation_set_with_scales_for_channels(model, tmp_path):
    with pytest.raises(ValueError, match="at least 13; received opset=12"):
        export.onnx(model, tmp_path / "model.onnx", dtype="int8", opset=12)


def test_open_input_size_is_refused_in_8_bits_only(tmp_path):
    images = keras.Input((None, None, 3))
    model = keras.Model(images, layers.Dense(2)(layers.GlobalAveragePooling2D()(images)))
    with pytest.raises(ValueError, match=r"dtype='int8' needs a fixed input size.*\(None, None, 3\)"):
        export.onnx(model, tmp_path / "model.onnx", dtype="int8", data=np.zeros((1, 8, 8, 3)))
    assert export.verify(export.onnx(model, tmp_path / "model.onnx"), model, repeats=0).passed


def test_operations_that_tf2onnx_lacks_are_written_in_others(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Activation("celu")(layers.Activation("gelu")(layers.Rescaling(1 / 255, -0.5)(inputs)))
    x = layers.Conv2D(4, 3)(keras.ops.log1p(x))
    path = export.onnx(keras.Model(inputs, keras.ops.argmax(x, axis=-1)), tmp_path / "model.onnx")  # which compares
    assert {"Erf", "Exp", "Log", "ArgMax"} < set(structure_of(path).operations)
    zeros = np.zeros((1, 8, 8, 3), "float32")
    zeros[..., 0] = -0.0  # is less than 0 to `argmax`, and nothing else
    path = export.onnx(keras.Model(inputs, keras.ops.argmax(inputs, axis=-1)), tmp_path / "signs.onnx")
    assert (export.runtime.open_runner(path)(zeros) == 1).all()


def test_other_reads_of_the_bits_of_floats_are_refused(tmp_path):
    import tensorflow as tf

    inputs = keras.Input((8, 8, 3))
    bits = layers.Lambda(lambda x: tf.cast(tf.bitcast(x, tf.int32), tf.float32), (8, 8, 3), name="bits")(inputs)
    with pytest.raises(ValueError, match="no operation for: Bitcast, needed in 'bits'"):
        export.onnx(keras.Model(inputs, bits), tmp_path / "model.onnx")


def test_tensors_and_functions_that_layers_hold_are_in_the_file(tmp_path, rng):
    held = keras.ops.convert_to_tensor(rng.normal(size=(8, 8, 3)).astype("float32"))
    images = keras.Input((8, 8, 3))
    x = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])(images)
    x = layers.Lambda(lambda x: x + held)(x)
    model = keras.Model(images, layers.Conv2D(6, 3, groups=3)(x))  # a function that XLA is to compile
    path = export.onnx(model, tmp_path / "model.onnx")  # which compares the answers
    structure = structure_of(path)
    assert structure.inputs == ("images (any, 8, 8, 3) float32",)
    assert structure.operations["Conv"] == 1


def test_grouped_convolution_is_one_operation(tmp_path, rng):
    inputs = keras.Input((16, 16, 8))
    x = se_keras.layers.GroupedConv2D(16, 3, groups=4)(inputs)
    model = keras.Model(inputs, se_keras.SqueezeExcite(reduction=4)(x))
    path = export.onnx(model, tmp_path / "grouped.onnx")
    nodes = onnx.load(path).graph.node
    counts = collections.Counter(node.op_type for node in nodes)
    assert counts["Conv"] == 3  # and the two of the block
    assert "Split" not in counts
    groups = [attribute.i for node in nodes for attribute in node.attribute if attribute.name == "group"]
    assert max(groups) == 4
    assert export.verify(path, model, repeats=0).passed


@pytest.mark.slow
def test_half_precision_policy_is_exported_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = shortened("se_resnet20")
    path = export.onnx(model, tmp_path / "mixed.onnx")
    assert structure_of(path).dtype == "fp32"
    assert export.verify(path, model, limits=export.Limits(relative_error=1e-2), repeats=0).passed


@pytest.mark.slow
def test_operation_set_is_chosen_or_refused(model, tmp_path):
    assert structure_of(export.onnx(model, tmp_path / "a.onnx", opset=np.int64(15))).opset == 15
    with pytest.raises(ValueError, match="Opset 99"):
        export.onnx(model, tmp_path / "b.onnx", opset=99)
    assert os.listdir(tmp_path) == ["a.onnx"]


def test_damaged_file_is_named(file, tmp_path):
    path = tmp_path / "half.onnx"
    path.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"half\.onnx' is damaged or not a valid ONNX model"):
        export.verify(path)


def test_uneven_batches(model, file):
    runner = export.runtime.open_runner(file)
    images = np.full((33, 32, 32, 3), 128, "float32")
    assert runner(images).shape == (33, 10)


@pytest.mark.parametrize(("backend", "extra"), [("tensorflow", "onnx"), ("jax", "onnx-jax"), ("torch", "onnx-torch")])
def test_a_missing_converter_names_the_extra_of_its_backend(backend, extra, model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setitem(sys.modules, ROUTES[backend].converter, None)
    with pytest.raises(ImportError, match=rf"needs the package '{ROUTES[backend].converter}'.*se_keras\[{extra}\]"):
        export.onnx(model, tmp_path / "model.onnx")


def test_operation_sets_that_a_converter_does_not_write_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="On jax, `opset` must be at least 18"):
        export.onnx(model, tmp_path / "model.onnx", opset=17)


ROUTE = """
    import keras, numpy as np, se_keras
    from se_keras import export
    from se_keras.export.structure import structure_of
    images = keras.Input((15, 15, 8))
    x = se_keras.layers.GroupedConv2D(8, 3, groups=4, padding="same")(images)
    x = keras.layers.MaxPooling2D(3, 2, padding="same")(keras.layers.BatchNormalization()(x))
    x = keras.layers.MaxPooling2D(3, 2, padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(se_keras.SqueezeExcite(4)(x))
    x = keras.layers.Dense(2000)(keras.layers.Dense(2000)(x))  # so large that converters put the weights into a file
    model = keras.Model(images, keras.layers.Dense(3, activation="softmax")(x))
    path = export.onnx(model, "model.onnx")
    report = export.verify(path, model, repeats=0)
    assert report.passed, report.failures
    print(report.agreements[0].runtime, *report.inputs)
    print(structure_of(path).operations)
    data = np.random.default_rng(0).integers(0, 256, (100, 15, 15, 8))
    for dtype in ("fp16", "int8"):
        print(structure_of(export.onnx(model, f"{dtype}.onnx", dtype=dtype, data=data)).dtype)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.torch)])
def test_other_backends_write_the_same_answers(backend, run_warm, tmp_path, monkeypatch):
    for package in (backend, ROUTES[backend].converter):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    printed = run_warm(ROUTE, backend)
    assert "onnx images (any, 15, 15, 8) float32" in printed
    means = sum(map(int, re.findall(r"'(?:ReduceMean|GlobalAveragePool)': (\d)", printed)))
    assert means == 2  # each squeeze is one operation
    assert sorted(os.listdir()) == ["fp16.onnx", "int8.onnx", "model.onnx"]
    assert [line for line in printed.splitlines() if line in ("fp16", "int8")] == ["fp16", "int8"]


def test_what_the_program_froze_stays_frozen(monkeypatch):
    gc.freeze()
    monkeypatch.setattr(gc, "unfreeze", lambda: pytest.fail("unfreezes objects of the program"))
    with to_onnx._garbage_collected():
        assert gc.get_threshold()[0] == 700
    assert gc.get_freeze_count() > 0


def test_integer_pixels_are_calibrated_as_integers(tmp_path, rng):
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    images = rng.integers(0, 256, (120, 8, 8, 3)).astype("uint8")
    path = export.onnx(model, tmp_path / "model.onnx", dtype="int8", data=images, verbose=0)
    found = export.verify(path, model, data=images, repeats=0, verbose=0)
    assert found.passed, found


@pytest.mark.slow
def test_the_class_of_a_layer_that_a_converter_refuses_is_named(run_warm, tmp_path, monkeypatch):
    for package in ("jax", "jax2onnx"):
        pytest.importorskip(package, reason="needs the extra 'onnx-jax'")
    code = """
        import keras
        from se_keras import export
        images = keras.Input((8, 8, 3))
        model = keras.Model(images, keras.layers.UpSampling2D(2, interpolation="bilinear")(images))
        try:
            export.onnx(model, "model.onnx", verbose=0)
        except ValueError as error:
            print(error)
    """
    monkeypatch.chdir(tmp_path)
    assert ": a layer of class UpSampling2D fails with " in run_warm(code, "jax")


@pytest.mark.slow
@pytest.mark.torch
def test_failures_of_pytorch_are_one_line_and_crashes_are_errors(run_warm, tmp_path, monkeypatch):
    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    code = """
        import keras
        from keras import layers
        from se_keras import export

        def failure(layer, *shape, **options):
            inputs = keras.Input(shape)
            try:
                export.onnx(keras.Model(inputs, layer(inputs)), "model.onnx", verbose=0, **options)
            except ValueError as error:
                print(error)

        failure(layers.Conv3D(2, 3, padding="same"), 4, 4, 4, 2)
        failure(layers.LSTM(8), 10, 6, dtype="fp16")  # ONNX Runtime 1.32 crashes on the file
    """
    monkeypatch.chdir(tmp_path)
    printed = run_warm(code, "torch").splitlines()
    assert "Or export on TensorFlow (KERAS_BACKEND=tensorflow)" in printed[0]
    assert len(printed) <= 2, printed
    assert all("its process ended with code" in line for line in printed[1:])
    assert os.listdir() in ([], ["model.onnx"])


@pytest.mark.parametrize(
    ("type_name", "message"),
    [(None, "has no inputs"), ("BFLOAT16", "has bfloat16"), ("SEQUENCE", r"has seq\(tensor\(float\)\)")],
)
def test_files_that_cannot_be_fed_are_refused(type_name, message, tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    output = helper.make_tensor_value_info("y", real, [1, 2])
    if type_name is None:
        value = helper.make_tensor("value", real, [1, 2], [1.0, 2.0])
        graph = helper.make_graph([helper.make_node("Constant", [], ["y"], value=value)], "graph", [], [output])
    elif type_name == "SEQUENCE":
        given = helper.make_tensor_sequence_value_info("x", real, [1, 2])
        graph = helper.make_graph(
            [helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)], "graph", [given], [output]
        )
    else:
        given = helper.make_tensor_value_info("x", getattr(onnx.TensorProto, type_name), [1, 2])
        graph = helper.make_graph([helper.make_node("Cast", ["x"], ["y"], to=real)], "graph", [given], [output])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=rf"must have inputs of dtypes that NumPy has; '.*model\.onnx' {message}"):
        export.verify(tmp_path / "model.onnx", verbose=0, repeats=0)
