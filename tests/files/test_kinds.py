"""What a file or folder is, by its content: each kind that is written is recognized, and no other."""

import json
import pathlib

import keras
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from se_keras.files import SAVED_MODEL, json_with, kind_of, openvino_weights, table_of


def keras_file(path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)


def weights_file(path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save_weights(path)


def parquet_file(path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    parquet.write_table(pyarrow.table({"file": ["a"]}), path)


def onnx_file(path):
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), path)


def openvino_text(offset, size):
    data = f'<data element_type="f32" shape="3" offset="{offset}" size="{size}" />'
    return f'<?xml version="1.0"?>\n<net name="g" version="11">\n<layers>{data}</layers>\n</net>\n'


WRITERS = {
    "a.csv": lambda path: path.write_text("file,error\na,b\n"),
    "a.weights.h5": weights_file,
    "a.json": lambda path: path.write_text(json.dumps({"a": "é" * 70_000})),
    "a.keras": keras_file,
    "a.md": lambda path: path.write_text("é" * 70_000, "utf-8"),
    "a.npz": lambda path: np.savez(path, a=np.zeros(1)),
    "a.onnx": onnx_file,
    "a.parquet": parquet_file,
    "a.png": lambda path: Image.new("RGB", (1, 1)).save(path),
    "a.safetensors": lambda path: save_file({"a": np.zeros(1)}, path),
    "a.tflite": lambda path: path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100)),
    "a.txt": lambda path: path.write_text("daisy\nrose\n"),
    "a.xml": lambda path: path.write_text(openvino_text(0, 12)),
}
TEXTS = {"a.csv", "a.json", "a.md", "a.txt", "a.xml"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One file of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, write in WRITERS.items():
        write(folder / name)
    return folder


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_of_its_own_kind_and_no_other(name, written):
    assert kind_of(name).obstacle(written / name) == ""
    for other in set(WRITERS) - {name}:
        if not {name, other} <= TEXTS:
            assert "a file of" in kind_of(name).obstacle(written / other), other
    for content in (b"x", b"\xff\xfe\0x", bytes(100), (written / name).read_bytes()[::-1] + b"\0\xff"):
        (written / "strange").write_bytes(content)
        if name not in ("a.md", "a.txt") or content != b"x":
            assert kind_of(name).obstacle(written / "strange"), content
    (written / "strange").write_bytes(b"")
    assert kind_of(name).obstacle(written / "strange") == ""
    assert "a folder" in kind_of(name).obstacle(written) or kind_of(name).obstacle(written) == "an empty folder"


def test_side_files_are_told_by_their_names_within(tmp_path):
    (tmp_path / "a.json").write_text('{"dtype": "fp32", "shape": [1]}')
    (tmp_path / "a.csv").write_text("file,error,more\n")
    assert json_with("dtype", "shape").obstacle(tmp_path / "a.json") == ""
    assert json_with("dtype", "class_names").obstacle(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[]")
    assert json_with("dtype").obstacle(tmp_path / "a.json")
    assert table_of("file", "error").obstacle(tmp_path / "a.csv") == ""
    assert "begins with b'file,error,m'" in table_of("error").obstacle(tmp_path / "a.csv")


def test_tables_name_files_of_any_name(tmp_path):
    (tmp_path / "a.csv").write_text('file,error\n"a\nb\x01.jpg",empty\n')
    for kind in (table_of("file", "error"), kind_of("a.csv")):
        assert kind.obstacle(tmp_path / "a.csv") == ""


def test_weights_belong_to_the_openvino_model_that_states_their_size(tmp_path):
    model, weights = tmp_path / "m.xml", tmp_path / "m.bin"
    weights.write_bytes(bytes(32))
    assert "begins with" in openvino_weights(model).obstacle(weights)  # there is no model
    for text, reason in ((openvino_text(20, 12), ""), (openvino_text(0, 12), "a file of"), ("<html>", "a file of")):
        model.write_text(text)
        assert openvino_weights(model).obstacle(weights)[:9] == reason
    (tmp_path / ".m.xml.writing/new").mkdir(parents=True)
    (tmp_path / ".m.xml.writing/new/m.xml").write_text(openvino_text(20, 12))  # just replaced
    assert openvino_weights(model).obstacle(weights) == ""


def saved_model(folder):
    (folder / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    "stranger",
    ["a.txt", ".git/HEAD", "variables/a", "assets/photo.jpg", "assets/labels.txt/a", "assets.extra/a", "empty/"],
)
def test_a_saved_model_holds_nothing_else(stranger, tmp_path):
    folder = saved_model(tmp_path / "m")
    assert SAVED_MODEL.obstacle(folder) == ""
    path = folder / stranger
    path.parent.mkdir(exist_ok=True, parents=True)
    path.mkdir() if stranger.endswith("/") else path.write_text("")
    assert "a folder that holds" in SAVED_MODEL.obstacle(folder)


def test_the_table_of_a_layer_belongs_in_a_saved_model_that_names_it(tmp_path):
    folder = saved_model(tmp_path / "m")
    (folder / "assets").mkdir()
    (folder / "assets/vocabulary.txt").write_text("a")
    assert SAVED_MODEL.obstacle(folder)
    (folder / "saved_model.pb").write_bytes(b"\x08\x01 ... vocabulary.txt ...")
    assert SAVED_MODEL.obstacle(folder) == ""
    (folder / "variables/vocabulary.txt").write_text("a")
    assert SAVED_MODEL.obstacle(folder)


def test_links_do_not_belong_in_a_saved_model(tmp_path):
    folder = saved_model(tmp_path / "m")
    (folder / "assets").symlink_to(tmp_path)
    assert SAVED_MODEL.obstacle(folder)
    (folder / "assets").unlink()
    (folder / "fingerprint.pb").symlink_to(pathlib.Path("saved_model.pb"))
    assert SAVED_MODEL.obstacle(folder)
    (folder / "fingerprint.pb").unlink()
    (folder / "saved_model.pb").unlink()
    assert SAVED_MODEL.obstacle(folder)
    assert SAVED_MODEL.obstacle(folder / "variables/variables.index")
