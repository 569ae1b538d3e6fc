"""ONNX: names, dynamic batch, operation sets, and the same answers in ONNX Runtime; skipped without the extra."""

import collections
import importlib.util
import os
import sys

import keras
import numpy as np
import pytest
from small_networks import shortened

import se_keras
from se_keras import export
from se_keras.export.structure import structure_of
from se_keras.export.to_onnx import OPSET, ROUTES

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


def test_half_precision_policy_is_exported_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = shortened("se_resnet20")
    path = export.onnx(model, tmp_path / "mixed.onnx")
    assert structure_of(path).dtype == "fp32"
    assert export.verify(path, model, limits=export.Limits(relative_error=1e-2), repeats=0).passed


def test_operation_set_is_chosen_or_refused(model, tmp_path):
    assert structure_of(export.onnx(model, tmp_path / "a.onnx", opset=np.int64(15))).opset == 15
    with pytest.raises(ValueError, match="Opset 99"):
        export.onnx(model, tmp_path / "b.onnx", opset=99)
    assert os.listdir(tmp_path) == ["a.onnx"]


def test_existing_file_and_wrong_ending_are_refused(model, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"only an ONNX model can be replaced there"):
            export.onnx(model, path, overwrite=overwrite)
    assert path.read_text() == "precious"
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        export.onnx(model, tmp_path / "model.pb")


def test_damaged_file_is_named(file, tmp_path):
    path = tmp_path / "half.onnx"
    path.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"half\.onnx' is damaged or not a valid ONNX model"):
        export.verify(path)


def test_several_inputs_are_refused(tmp_path):
    inputs = [keras.Input((4,)), keras.Input((4,))]
    with pytest.raises(ValueError, match="one input"):
        export.onnx(keras.Model(inputs, keras.layers.Add()(inputs)), tmp_path / "model.onnx")


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
    with pytest.raises(ValueError, match="On jax `opset` must be at least 18"):
        export.onnx(model, tmp_path / "model.onnx", opset=17)


ROUTE = """
    import keras, numpy as np, se_keras
    from se_keras import export
    images = keras.Input((16, 16, 8))
    x = se_keras.layers.GroupedConv2D(8, 3, groups=4, padding="same")(images)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(se_keras.SqueezeExcite(4)(x))
    model = keras.Model(images, keras.layers.Dense(3, activation="softmax")(x))
    path = export.onnx(model, "model.onnx")
    report = export.verify(path, model, repeats=0)
    assert report.passed, report.failures
    print(report.agreements[0].runtime, *report.inputs)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.torch)])
def test_other_backends_write_the_same_answers(backend, run_python, tmp_path, monkeypatch):
    for package in (backend, ROUTES[backend].converter):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    assert "onnx images (any, 16, 16, 8) float32" in run_python(ROUTE, KERAS_BACKEND=backend)
