"""Checkpoint files: every format, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import struct
import zipfile

import keras
import numpy as np
import pytest
import safetensors.numpy
from safetensors import SafetensorError
from small_networks import answers

import se_keras
from se_keras import SEConfig
from se_keras.errors import WeightsMismatchError
from se_keras.images.record import Preprocessing
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS, lost_without_config
from se_keras.preprocessing import preprocessing_of
from se_keras.weights.caffe import net_parameter_class, read_caffemodel
from se_keras.weights.files import save_safetensors
from se_keras.weights.find import find_record
from se_keras.weights.load import load
from se_keras.weights.readers import SafetensorsFile, read_tensors
from se_keras.weights.rules.caffe import CAFFE_INPUT
from se_keras.weights.structure import fingerprint_of


@pytest.fixture(scope="module")
def model():
    return se_keras.SEResNet20()


def test_own_file_travels(model, tmp_path):
    path = save_safetensors(model, tmp_path / "weights.safetensors")
    other = se_keras.SEResNet20(weights=path)
    for ours, theirs in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs))
    header = SafetensorsFile(path)
    assert header.metadata["model"] == "se_resnet20"
    assert "stage2_block1_se/reduce_kernel" in header
    assert os.listdir(tmp_path) == ["weights.safetensors"]


def test_same_weights_give_the_same_bytes(model, tmp_path):
    files = [save_safetensors(model, tmp_path / f"{number}.safetensors").read_bytes() for number in range(4)]
    assert set(files) == {files[0]}


def test_own_file_of_another_lineage_finds_its_structure(tmp_path):
    network = NETWORKS["se_resnet18"]
    trained = assemble("se_resnet18", network, Options(input_shape=(64, 64, 3)), lineage="legacy")
    path = save_safetensors(trained, tmp_path / "weights.safetensors")
    loaded = se_keras.SEResNet18(weights=path, input_shape=(64, 64, 3))
    images = np.arange(64 * 64 * 3, dtype="float32").reshape(1, 64, 64, 3) % 256
    np.testing.assert_array_equal(answers(loaded, images), answers(trained, images))


@pytest.mark.slow
def test_same_shapes_of_another_structure_are_refused(tmp_path):
    network = NETWORKS["se_resnet50"]
    options = Options(input_shape=(None, None, 3), include_preprocessing=False)
    official, torch_like = (assemble("se_resnet50", network, options, lineage=lineage) for lineage in (None, "timm"))
    assert [v.shape for v in official.variables] == [v.shape for v in torch_like.variables]
    assert fingerprint_of(official) != fingerprint_of(torch_like)
    path = save_safetensors(official, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsMismatchError, match=r"another structure(?s:.*)that the weights were saved from\.$"):
        load(find_record("se_resnet50", path), torch_like)


def test_se_and_plain_are_told_apart_in_words(tmp_path):
    for se, other, hint in ((SEConfig(), None, "leave out `se=None`"), (None, SEConfig(), "pass se=None")):
        path = save_safetensors(se_keras.SEResNet20(se=se), tmp_path / "weights.safetensors", overwrite=True)
        with pytest.raises(WeightsMismatchError, match=f"Hint: the weights .*{hint}"):
            se_keras.SEResNet20(weights=path, se=other)


def test_structure_does_not_depend_on_size_classes_or_head():
    fingerprints = {
        fingerprint_of(se_keras.SEResNet20(input_shape=(64, 40, 3), classes=3)),
        fingerprint_of(se_keras.SEResNet20(include_top=False, include_preprocessing=False)),
        fingerprint_of(se_keras.SEResNet20(dropout=0.5, classifier_activation=None)),
    }
    assert len(fingerprints) == 1


@pytest.mark.parametrize("ending", [".safetensors", ".keras"])
def test_preprocessing_and_lineage_come_back(ending, tmp_path):
    adapted = dataclasses.replace(NETWORKS["se_resnet18"], preprocessing=CAFFE_INPUT)
    trained = assemble("se_resnet18", adapted, Options(input_shape=(64, 64, 3)), lineage="legacy")
    path = tmp_path / f"weights{ending}"
    trained.save(path) if ending == ".keras" else save_safetensors(trained, path)
    loaded = se_keras.SEResNet18(weights=path, input_shape=(64, 64, 3))
    assert preprocessing_of(loaded) == preprocessing_of(trained)
    assert fingerprint_of(loaded) == fingerprint_of(trained)
    images = np.arange(64 * 64 * 3, dtype="float32").reshape(1, 64, 64, 3) % 256
    np.testing.assert_array_equal(answers(loaded, images), answers(trained, images))


def test_input_size_of_the_file_is_the_default(tmp_path):
    adapted = dataclasses.replace(NETWORKS["se_resnet20"], preprocessing=Preprocessing(size=48))
    path = save_safetensors(assemble("se_resnet20", adapted, Options()), tmp_path / "weights.safetensors")
    assert se_keras.SEResNet20(weights=path).input_shape == (None, 48, 48, 3)


def test_file_without_preprocessing_gets_the_networks_own(tmp_path):
    for ending in (".safetensors", ".keras"):
        path, model = tmp_path / f"bare{ending}", se_keras.SEResNet20(include_preprocessing=False)
        model.save(path) if ending == ".keras" else save_safetensors(model, path)
        assert preprocessing_of(se_keras.SEResNet20(weights=path)) == preprocessing_of(se_keras.SEResNet20())


@pytest.mark.slow
def test_what_weights_alone_do_not_tell():
    network = NETWORKS["se_resnet18"]
    options = Options(input_shape=(64, 64, 3))
    caffe = dataclasses.replace(network, preprocessing=CAFFE_INPUT)
    for adapted, lineage, lost in (
        (network, None, ()),
        (caffe, "legacy", ("preprocessing", "structure")),
    ):
        model = assemble("se_resnet18", adapted, options, lineage=lineage)
        assert lost_without_config("se_resnet18", model) == lost
    for name in ("se_resnet20.cifar10", "se_resnet20.cifar10_plain"):
        assert lost_without_config("se_resnet20", se_keras.create_model(name)) == ("class names",)


@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_keras_files_by_path(ending, model, tmp_path):
    path = tmp_path / f"model{ending}"
    model.save_weights(path) if ending == ".weights.h5" else model.save(path)
    other = se_keras.SEResNet20(weights=path)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model.get_layer("logits").kernel),
        keras.ops.convert_to_numpy(other.get_layer("logits").kernel),
    )


@pytest.mark.torch
def test_pth_holds_the_same_tensors(tmp_path, legacy18):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(array) for name, array in legacy18.items()}, tmp_path / "model.pth")
    read = read_tensors(tmp_path / "model.pth")
    assert read.keys() == legacy18.keys()
    np.testing.assert_array_equal(read["last_linear.bias"], legacy18["last_linear.bias"])


# What trainings and wrappers put around the tensors.


def tiny_state(prefix=""):
    names = ("layer0.conv1.weight", "layer1.0.conv1.weight", "last_linear.bias")
    return {prefix + name: np.full(3, number, "float32") for number, name in enumerate(names)}


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.model.module.", "net.backbone."])
def test_a_prefix_that_all_names_share_is_left_out_with_a_note(prefix, tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(tiny_state(prefix), path)
    with pytest.warns(UserWarning, match=rf"removing the prefix '{prefix}', which all names share"):
        read = read_tensors(path)
    assert read.keys() == tiny_state().keys()
    assert read["last_linear.bias"][0] == 2
    assert "module.x" not in read


def test_a_prefix_of_some_names_stays(tmp_path):
    state = tiny_state("module.") | {"criterion.weight": np.zeros(1, "float32")}
    safetensors.numpy.save_file(state, tmp_path / "model.safetensors")
    assert read_tensors(tmp_path / "model.safetensors").keys() == state.keys()
    safetensors.numpy.save_file({"layer.weight": np.zeros(1, "float32")}, tmp_path / "one.safetensors")
    assert list(read_tensors(tmp_path / "one.safetensors")) == ["layer.weight"]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("nest", "inside"),
    [
        (lambda state: {"state_dict": state, "epoch": 3}, "state_dict"),
        (lambda state: {"model": state, "optimizer": {"lr": 0.1}}, "model"),
        (lambda state: {"ema": state, "args": {"x": [1]}}, "ema"),
        (lambda state: {"model_ema": state, "model": {}}, "model_ema"),
        (lambda state: {"state_dict": {}, "state_dict_ema": state}, "state_dict_ema"),
        (lambda state: {"model": {"state_dict": state}}, "model/state_dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("ending", [".pth", ".pt", ".ckpt"])
def test_tensors_are_found_inside_a_training_with_a_note(nest, inside, ending, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / f"model{ending}"
    torch.save(nest({name: torch.from_numpy(array) for name, array in tiny_state("module.").items()}), path)
    with pytest.warns(UserWarning, match=".") as notes:
        read = read_tensors(path)
    assert [str(note.message) for note in notes] == [
        f"{str(path)!r}: reading the tensors under {inside!r}.",
        f"{str(path)!r}: removing the prefix 'module.', which all names share.",
    ]
    assert read.keys() == tiny_state().keys()


@pytest.mark.torch
def test_averaged_and_half_precision_tensors_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array).bfloat16() for name, array in tiny_state("module.").items()}
    torch.save({"n_averaged": torch.tensor(7), **state}, tmp_path / "model.pth")
    with pytest.warns(UserWarning, match="which all names share"):
        read = read_tensors(tmp_path / "model.pth")
    assert read.keys() == tiny_state().keys()
    assert read["last_linear.bias"].dtype == "float32"


@pytest.mark.torch
def test_a_wrapped_checkpoint_fills_the_network_and_a_wrong_one_does_not(tmp_path, legacy18):
    wrapped = {f"module.{name}": array for name, array in legacy18.items()}
    path = tmp_path / "wrapped.safetensors"
    safetensors.numpy.save_file(wrapped, path)
    with pytest.warns(UserWarning, match="'module\\.'"):
        model = se_keras.SEResNet18(weights=path, input_shape=(64, 64, 3))
    bias = keras.ops.convert_to_numpy(model.get_layer("logits").bias)
    np.testing.assert_array_equal(bias, legacy18["last_linear.bias"])
    del wrapped["module.last_linear.bias"]
    safetensors.numpy.save_file(wrapped, path)
    with (
        pytest.warns(UserWarning, match="'module\\.'"),
        pytest.raises(WeightsMismatchError, match=r"last_linear\.bias"),
    ):
        se_keras.SEResNet18(weights=path, input_shape=(64, 64, 3))


class _Malicious:
    def __reduce__(self):
        return (os.system, (f"touch {_Malicious.proof}",))

    proof = ""


@pytest.mark.torch
def test_malicious_pickle_is_refused_and_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    _Malicious.proof = str(tmp_path / "run")
    torch.save({"weights": _Malicious()}, tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(_Malicious()))
    for name in ("new.pth", "old.pth"):
        with pytest.raises(ValueError, match=r"contains more than tensors.*system"):
            read_tensors(tmp_path / name)
    assert not os.path.exists(_Malicious.proof)


def _header(entries: dict) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        struct.pack("<Q", 1 << 60) + b"{}",
        _header({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}) + bytes(8),
        _header({"x": {"dtype": "F32", "shape": [400], "data_offsets": [0, 16]}}) + bytes(16),
        _header({"x": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}) + bytes(16),
        b"<!DOCTYPE html><html>please log in</html>",
    ],
    ids=["empty", "short", "huge header", "truncated", "shape lies", "offset lies", "web page"],
)
def test_damaged_safetensors_are_refused(content, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.safetensors' is (damaged or )?not a valid safetensors file"):
        read_tensors(path)


@pytest.mark.parametrize("prepared", ["{", "[]", "{}", "null", '{"size": -1}', '"text"', '{"size": "x"}'])
def test_a_damaged_header_of_our_own_names_the_file(prepared, tmp_path):
    path = tmp_path / "own.safetensors"
    header = {"format": "se_keras-1", "preprocessing": prepared}
    safetensors.numpy.save_file({"a/b": np.zeros(1, "float32")}, path, metadata=header)
    with pytest.raises(ValueError, match=r"own\.safetensors' is damaged"):
        print(SafetensorsFile(path).stated)


def test_a_float_type_that_numpy_has_not_is_named(tmp_path):
    path = tmp_path / "half.safetensors"
    path.write_bytes(_header({"x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}) + bytes(4))
    with pytest.raises(ValueError, match=r"the tensor 'x' in .*half\.safetensors"):
        read_tensors(path)["x"]


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".caffemodel", ".keras", ".weights.h5"])
def test_a_pointer_of_git_lfs_is_told(ending, model, tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match=r"model\..* is not a valid .*, but a Git LFS pointer.*`git lfs pull`"):
        se_keras.SEResNet20(weights=path)


def caffemodel(**layers: list[tuple[tuple[int, ...], int]]) -> bytes:
    """A Caffe network whose blobs say a shape and hold a number of values."""
    network = net_parameter_class()(name="test")
    for name, blobs in layers.items():
        layer = network.layer.add(name=name, type="Convolution")
        for shape, count in blobs:
            blob = layer.blobs.add(data=range(count))
            blob.shape.dim.extend(shape)
    return network.SerializeToString()


def test_caffemodel_blobs_by_layer_and_number(tmp_path):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel(conv=[((2, 3), 6), ((2,), 2)]))
    blobs = read_caffemodel(path)
    assert blobs.keys() == {"conv[0]", "conv[1]"}
    assert blobs["conv[0]"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (caffemodel(conv=[((2, 3), 5)]), r"states the shape \(2, 3\), but contains 5 numbers"),
        (caffemodel(conv=[((1 << 40, 1 << 20), 1)]), "but contains 1 numbers"),
        (caffemodel(), "contains no weights"),
        (b"\xa2\x06\xff\xff\xff\xff\x07abc", "damaged or not a valid Caffe network"),
        (b"\x0b" * 100_000, "damaged or not a valid Caffe network"),
        (b"<!DOCTYPE html>", "is not a valid Caffe network, but a web page"),
    ],
    ids=["shape lies", "huge shape", "empty", "length lies", "nested 100,000 deep", "web page"],
)
def test_damaged_caffemodels_are_refused(content, message, tmp_path):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_caffemodel(path)


def test_unknown_ending_and_missing_file(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"Unknown kind of checkpoint file '\.onnx'"):
        read_tensors(tmp_path / "model.onnx")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*gone\.safetensors"):
        read_tensors(tmp_path / "gone.safetensors")
    with pytest.raises(ValueError, match="Unknown kind of file to write"):
        save_safetensors(se_keras.SEResNet20(), tmp_path / "model.h5")


def test_failed_write_leaves_what_was_there(model, tmp_path, monkeypatch):
    path = save_safetensors(model, tmp_path / "weights.safetensors")
    old = path.read_bytes()

    def full(*args, **kwargs):
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr("se_keras.weights.files.save_file", full)
    with pytest.raises(OSError, match=r"weights.safetensors' could not be written: No space left.*unchanged"):
        save_safetensors(model, path, overwrite=True)
    with pytest.raises(FileExistsError, match="Pass overwrite=True"):
        save_safetensors(model, path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["weights.safetensors"]


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("se_keras.weights.readers.safe_open", refused)
    with pytest.raises(PermissionError, match=r"You may not read '.*w.safetensors'"):
        SafetensorsFile(tmp_path / "w.safetensors")


def test_names_that_look_like_paths_stay_names(model, tmp_path):
    path = tmp_path / "evil.safetensors"
    safetensors.numpy.save_file({"../../escape": np.zeros(1, "float32")}, path)
    with pytest.raises(ValueError, match=r"no known family.*\.\./\.\./escape"):
        se_keras.SEResNet20(weights=path)
    assert sorted(os.listdir(tmp_path)) == ["evil.safetensors"]


def test_archive_with_a_path_outside_writes_nothing(model, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    model.save(folder / "model.keras")
    with zipfile.ZipFile(folder / "model.keras", "a") as archive:
        archive.writestr("../escape", "x")
    se_keras.SEResNet20(weights=folder / "model.keras")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inner", "model.keras"]


@pytest.mark.parametrize("ending", ["safetensors", "weights.h5", "keras"])
def test_weights_that_diverged_are_refused_by_name(model, tmp_path, ending):
    model.get_layer("logits").bias.assign([0.0] * 9 + [np.nan])
    path = tmp_path / f"weights.{ending}"
    {"safetensors": save_safetensors, "weights.h5": lambda m, p: m.save_weights(p)}.get(ending, lambda m, p: m.save(p))(
        model, path
    )
    with pytest.raises(ValueError, match=r"must be finite; the tensor 'logits/bias' of .* has 1 NaN .* of 10\."):
        se_keras.SEResNet20(weights=path)
