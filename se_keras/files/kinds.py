"""Kinds of outputs, recognized by their content, so that nothing else is replaced."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib
import re
import stat
import zipfile
from collections.abc import Callable

_START = 1 << 16  # bytes of a text that are read
_PNG = b"\x89PNG\r\n\x1a\n"
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f]")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of output.

    Args:
        name: A noun phrase, for messages.
        recognizes: Whether a file that is not empty, or a folder, holds this kind.
        is_folder: Whether it is a folder.
    """

    name: str
    recognizes: Callable[[pathlib.Path], bool]
    is_folder: bool = False

    def obstacle(self, path: pathlib.Path) -> str:
        """Returns why what exists at a path must not be replaced by this kind.

        Args:
            path: Something that exists; a link is not followed.

        Returns:
            What was found, as a noun phrase; "" for the same kind, and for an empty file or folder.
        """
        mode = path.lstat().st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            return "neither a file nor a folder"
        if stat.S_ISDIR(mode) != self.is_folder:
            return _found(path)
        is_empty = not os.listdir(path) if self.is_folder else path.stat().st_size == 0
        return "" if is_empty or self.recognizes(path) else _found(path)


def working_folder(final: pathlib.Path) -> pathlib.Path:
    """Returns the hidden folder next to a target in which it is written."""
    return final.with_name(f".{final.name}.writing")


def _found(path: pathlib.Path) -> str:
    if path.is_dir():
        names = sorted(os.listdir(path))
        return f"a folder that holds {', '.join(map(repr, names[:3]))}" if names else "an empty folder"
    return f"a file of {path.stat().st_size:,} bytes that begins with {_start(path, 12)!r}"


def _start(path: pathlib.Path, size: int) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(size)


def _starting(*signature: bytes, at: int = 0) -> Callable[[pathlib.Path], bool]:
    return lambda path: _start(path, at + 16)[at:].startswith(signature)


def _is_zip_of(belongs: Callable[[set[str]], bool]) -> Callable[[pathlib.Path], bool]:
    def recognizes(path: pathlib.Path) -> bool:
        try:
            with zipfile.ZipFile(path) as archive:
                return belongs(set(archive.namelist()))
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return False

    return recognizes


def _is_safetensors(path: pathlib.Path) -> bool:
    start = _start(path, 9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _is_onnx(path: pathlib.Path) -> bool:
    # A ModelProto: the version of the format (field 1, a small number), then a text or a message.
    start = _start(path, 3)
    return len(start) == 3 and start[0] == 0x08 and start[1] < 64 and start[2] & 7 == 2


def _is_openvino(path: pathlib.Path) -> bool:
    return re.match(r"<\?xml[^>]*>\s*<net\s", _text(path) or "") is not None


def _weights_end(model: pathlib.Path) -> int:
    """Returns the size of the weights that an OpenVINO model refers to; -1 for anything else."""
    if not model.is_file() or not _is_openvino(model):
        return -1
    places = re.findall(r'offset="(\d+)" size="(\d+)"', model.read_text("utf-8"))
    return max((int(offset) + int(size) for offset, size in places), default=0)


def _text(path: pathlib.Path) -> str | None:
    """Returns the beginning of a UTF-8 text; None for anything else."""
    return _decoded(_start(path, _START))


def _decoded(start: bytes) -> str | None:
    try:
        text = start.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # not just cut in the middle of a character
            return None
        text = start[: error.start].decode()
    return None if _CONTROLS.search(text) else text


def _header(path: pathlib.Path) -> list[str]:
    start = _start(path, _START)
    lines = (_decoded(start.partition(b"\n")[0]) or "").splitlines()  # the names of files in the rows may be any text
    return next(csv.reader(lines[:1]), []) if b"\0" not in start else []


def _json(path: pathlib.Path) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError:  # including for a wrong encoding
        return None


_IN_A_SAVED_MODEL = re.compile(
    r"saved_model\.pb|fingerprint\.pb|keras_metadata\.pb|variables/variables\.(index|data-\d{5}-of-\d{5})|"
    r"assets/labels\.txt|assets\.extra/tf_serving_warmup_requests"
)


def _is_saved_model(folder: pathlib.Path) -> bool:
    found = set()
    for parent, folders, files in os.walk(folder):
        here = pathlib.Path(parent)
        if any((here / name).is_symlink() or not (here / name).is_file() for name in files):
            return False
        if any((here / name).is_symlink() or name not in ("variables", "assets", "assets.extra") for name in folders):
            return False
        found |= {(here / name).relative_to(folder).as_posix() for name in files}
    others = {path for path in found if not _IN_A_SAVED_MODEL.fullmatch(path)}
    return "saved_model.pb" in found and (not others or _are_assets(others, folder / "saved_model.pb"))


def _are_assets(paths: set[str], description: pathlib.Path) -> bool:
    """Returns whether files are assets of layers, such as vocabularies, that the description of a SavedModel names."""
    names = [path.removeprefix("assets/") for path in paths]
    content = description.read_bytes()
    return all("/" not in name and len(name) > 3 and name.encode() in content for name in names)


_TIMM_FILES = {"README.md", "config.json", "model.safetensors"}


def _is_timm_layout(folder: pathlib.Path) -> bool:
    paths = list(folder.iterdir())
    config = _json(folder / "config.json") if {path.name for path in paths} == _TIMM_FILES else None
    is_plain = all(path.is_file() and not path.is_symlink() for path in paths)
    return is_plain and isinstance(config, dict) and {"architecture", "pretrained_cfg"} <= set(config)


def _is_drawn(path: pathlib.Path) -> bool:
    start = _start(path, 256)
    return start.startswith(_PNG) and b"Matplotlib" in start


def openvino_weights(model: str | os.PathLike) -> Kind:
    """Returns the kind of the `.bin` file of an OpenVINO model, which can only be recognized by its size.

    Args:
        model: The final path of the `.xml` file, which states the size. Where it has just been replaced, the model
            in its working folder still states the size of the old weights.
    """
    final = pathlib.Path(os.path.realpath(model))

    def recognizes(path: pathlib.Path) -> bool:
        size = path.stat().st_size
        return any(_weights_end(xml) == size for xml in (final, *working_folder(final).glob("new/*.xml")))

    return Kind(f"the weights of the OpenVINO model {final.name!r}", recognizes)


SAVED_MODEL = Kind("a SavedModel", _is_saved_model, is_folder=True)
TIMM_LAYOUT = Kind("a network in timm's layout", _is_timm_layout, is_folder=True)
FIGURE = Kind("a figure of matplotlib", _is_drawn)
_KINDS = {
    ".csv": Kind("a CSV table", lambda path: len(_header(path)) > 1),
    ".h5": Kind("an HDF5 file", _starting(b"\x89HDF\r\n\x1a\n")),
    ".json": Kind("a JSON file", lambda path: isinstance(_json(path), dict | list)),
    ".keras": Kind("a Keras model", _is_zip_of(lambda names: {"config.json", "metadata.json"} <= names)),
    ".md": Kind("a text", lambda path: _text(path) is not None),
    ".npz": Kind("an NPZ file", _is_zip_of(lambda names: all(name.endswith(".npy") for name in names))),
    ".onnx": Kind("an ONNX model", _is_onnx),
    ".parquet": Kind("a Parquet table", _starting(b"PAR1")),
    ".png": Kind("a PNG picture", _starting(_PNG)),
    ".safetensors": Kind("a safetensors file", _is_safetensors),
    ".tflite": Kind("a TFLite model", _starting(b"TFL3", at=4)),
    ".txt": Kind("a text", lambda path: _text(path) is not None),
    ".xml": Kind("an OpenVINO model", _is_openvino),
}


def kind_of(path: str | os.PathLike) -> Kind:
    """Returns the kind of file with a certain suffix.

    Args:
        path: The file to write.

    Raises:
        ValueError: No kind of output has this suffix.
    """
    suffix = pathlib.Path(path).suffix
    if suffix not in _KINDS:
        raise ValueError(f"An output must end in {', '.join(_KINDS)}; received {os.fspath(path)!r}.")
    return _KINDS[suffix]


def json_with(*keys: str) -> Kind:
    """Returns the kind of a JSON file that holds an object with certain keys, and possibly more.

    Args:
        keys: Keys at the top level.
    """

    def recognizes(path: pathlib.Path) -> bool:
        content = _json(path)
        return isinstance(content, dict) and set(keys) <= set(content)

    return Kind(f"a JSON file with {', '.join(map(repr, keys))}", recognizes)


def table_of(*columns: str) -> Kind:
    """Returns the kind of a CSV table whose first columns have certain names.

    Args:
        columns: The names, in order.
    """
    names = ", ".join(map(repr, columns))
    return Kind(f"a CSV table that begins with {names}", lambda path: _header(path)[: len(columns)] == [*columns])


def text_of(pattern: str, *, name: str) -> Kind:
    """Returns the kind of a text file whose first line has a certain form.

    Args:
        pattern: A regular expression that matches the whole line.
        name: A noun phrase, for messages.
    """

    def recognizes(path: pathlib.Path) -> bool:
        lines = (_text(path) or "").splitlines()
        return bool(lines) and re.fullmatch(pattern, lines[0]) is not None

    return Kind(name, recognizes)
