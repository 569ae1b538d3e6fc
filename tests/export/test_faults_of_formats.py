"""What goes wrong while a file is written: the same in every format, in one line, and what was there stays."""

import contextlib
import importlib
import os
import pathlib
import resource
import shutil
import signal

import keras
import numpy as np
import pytest
from keras import layers

from se_keras import export

PACKAGES = {"saved_model": "tensorflow", "tflite": "tensorflow", "onnx": "tf2onnx", "openvino": "openvino"}
NAMES = {
    "saved_model": ["model"],
    "tflite": ["model.tflite", "model.json"],
    "onnx": ["model.onnx"],
    "openvino": ["model.xml", "model.bin"],
}
WRITERS = {
    "saved_model": ("tensorflow", "saved_model.save"),
    "tflite": ("pathlib", "Path.write_bytes"),
    "onnx": ("onnx", "save"),
    "openvino": ("openvino", "save_model"),
}


@pytest.fixture(scope="module", params=PACKAGES)
def form(request):
    pytest.importorskip(PACKAGES[request.param], reason=f"needs {PACKAGES[request.param]}")
    return request.param


@pytest.fixture(scope="module")
def plain():
    inputs = keras.Input((8, 8, 3))
    x = layers.Dense(64)(layers.GlobalAveragePooling2D()(inputs))
    return keras.Model(inputs, layers.Dense(4)(x), name="plain")


@pytest.fixture(scope="module")
def exported(form, plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp(form)
    getattr(export, form)(plain, folder / NAMES[form][0], verbose=0)
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    """A folder of its own for a test, with an export in it."""
    return shutil.copytree(exported, tmp_path / "exports")


@contextlib.contextmanager
def unchanged(folder):
    before = content_of(folder)
    yield
    assert content_of(folder) == before


def content_of(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def write(form, model, folder, **options):
    return getattr(export, form)(model, folder / NAMES[form][0], verbose=0, **options)


def test_an_export_is_not_replaced_untold(form, plain, folder):
    with unchanged(folder), pytest.raises(FileExistsError, match="Pass overwrite=True to replace it"):
        write(form, plain, folder)


@pytest.mark.slow
def test_an_export_is_replaced_if_told(form, plain, folder):
    before = content_of(folder)
    other = keras.Model(plain.inputs[0], layers.Activation("sigmoid")(plain.outputs[0]))
    write(form, other, folder, overwrite=True)
    assert set(os.listdir(folder)) == set(NAMES[form])
    assert content_of(folder) != before


def test_what_is_no_export_is_never_replaced(form, plain, tmp_path):
    for name in NAMES[form]:
        path = tmp_path / name
        if form == "saved_model":
            path.mkdir()
            (path / "precious").touch()
        else:
            path.write_bytes(b"precious")
        for overwrite in (False, True):
            with unchanged(tmp_path), pytest.raises(FileExistsError, match=rf"{name}' is a (file|folder) .*replaced"):
                write(form, plain, tmp_path, overwrite=overwrite)
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def on_a_full_disk(function):
    def limited(*arguments, **options):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        try:
            return function(*arguments, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)

    return limited


def test_full_disk_leaves_what_was_there(form, plain, folder, monkeypatch):
    module, name = WRITERS[form]
    owner = importlib.import_module(module)
    for part in name.split(".")[:-1]:
        owner = getattr(owner, part)
    last = name.split(".")[-1]
    monkeypatch.setattr(owner, last, on_a_full_disk(getattr(owner, last)))
    reason = "(No space left on device|File too large). Make room and try again; what was there is unchanged"
    with unchanged(folder), pytest.raises(OSError, match=f"{NAMES[form][0]}' could not be written: {reason}"):
        write(form, plain, folder, overwrite=True)


class Python(layers.Layer):
    """Calls a function of this process."""

    def call(self, inputs):
        import tensorflow as tf

        outputs = tf.numpy_function(np.copy, [inputs], tf.float32)
        outputs.set_shape(inputs.shape)
        return outputs

    def compute_output_shape(self, input_shape):
        return input_shape


class Failing(layers.Layer):
    """Raises an error where it is called in a graph of TensorFlow."""

    def call(self, inputs):
        import tensorflow as tf

        if not tf.executing_eagerly():
            raise KeyError("a reason\nin two lines")
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape


def with_layer(layer):
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layers.ReLU()(layer(layers.ReLU()(inputs))), name="own")


def test_layer_that_a_format_cannot_hold_is_named(form, folder):
    with (
        unchanged(folder),
        pytest.raises(ValueError, match=r"has no operation for: PyFunc, needed in 'odd' \(Python\)\. Replace"),
    ):
        write(form, with_layer(Python(name="odd")), folder, overwrite=True)


def test_layer_inside_another_is_named_by_it(form, unsupported, folder):
    if form == "saved_model":
        pytest.skip("a SavedModel holds every operation of TensorFlow")
    with unchanged(folder), pytest.raises(ValueError, match=r"has no operation for: Erfinv, needed in 'odd' \(Odd\)"):
        write(form, unsupported, folder, overwrite=True)


def test_any_error_of_a_converter_is_one_line_with_its_layer(form, folder):
    with unchanged(folder), pytest.raises(ValueError, match="cannot be written from 'own'") as raised:
        write(form, with_layer(Failing(name="broken")), folder, overwrite=True)
    assert "'broken' (Failing) fails with KeyError: a reason in two lines. Replace the layer" in str(raised.value)
    assert isinstance(raised.value.__cause__, KeyError)
    assert "\n" not in str(raised.value)


def test_an_error_without_a_layer_says_how_to_find_it(form, plain, folder, monkeypatch):
    def fail(*arguments, **options):
        raise IndexError("list index out of range")

    monkeypatch.setattr(keras.Model, "export" if form == "onnx" else "__call__", fail)
    with unchanged(folder), pytest.raises(ValueError, match=r"'plain': IndexError: list index .*\. To find the layer"):
        write(form, plain, folder, overwrite=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "Unknown dtype 'int4'"),
        ({"dtype": "int8"}, "needs `data`"),
        ({"dtype": "int8", "data": np.zeros((150, 8, 8, 3))}, "at least 100 different images.*1 of them different"),
        ({"class_names": ["one"]}, "each of the 4 classes; received 1"),
    ],
)
def test_wrong_arguments_leave_what_was_there(options, message, form, plain, folder):
    if form == "saved_model" and "dtype" in options:
        pytest.skip("a SavedModel has one precision")
    with unchanged(folder), pytest.raises(ValueError, match=message):
        write(form, plain, folder, overwrite=True, **options)


def test_another_suffix_is_refused(form, plain, tmp_path):
    suffix = pathlib.Path(NAMES[form][0]).suffix
    if not suffix:
        pytest.skip("a folder has any name")
    with pytest.raises(ValueError, match=rf"must end in \{suffix}; received '.*model\.other'"):
        getattr(export, form)(plain, tmp_path / "model.other")
    assert os.listdir(tmp_path) == []


def test_one_number_for_all_samples_is_no_output(form, tmp_path):
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="one row per sample; output 1 of 'whole' is one number for all samples"):
        write(form, keras.Model(inputs, [inputs, keras.ops.mean(inputs)], name="whole"), tmp_path)
    assert os.listdir(tmp_path) == []
