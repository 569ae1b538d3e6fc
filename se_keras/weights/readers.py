"""Readers of checkpoint files, from other sources and from this package."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from se_keras.errors import one_of
from se_keras.file_kinds import damaged, described
from se_keras.images.record import Preprocessing
from se_keras.weights.caffe import read_caffemodel
from se_keras.weights.pickles import RefusedError
from se_keras.weights.torch_files import read_torch_file

OWN_FORMAT = "se_keras-1"


@dataclasses.dataclass(frozen=True)
class Stated:
    """What a weights file states about the network that it was written from; None where it states nothing.

    Args:
        structure: The network's `fingerprint_of`.
        preprocessing: The network's preprocessing.
        class_names: The network's class names; () if it has none of its own.
        classes: Length of its output; only next to class names.
    """

    structure: str | None = None
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    classes: int | None = None


class SafetensorsFile(Mapping[str, np.ndarray]):
    """A mapping of the tensors in a `.safetensors` file, which reads each tensor on access.

    Args:
        path: The file.

    Raises:
        PermissionError: The user may not read the file.
        ValueError: The file is damaged, or its header does not fit its content. On access: the tensor's type does not
            exist in NumPy.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        try:
            self._file = safe_open(self.path, framework="numpy")
        except PermissionError as error:
            raise PermissionError(f"You may not read {self.path!r}; ask its owner for permission.") from error
        except (SafetensorError, OSError) as error:
            raise damaged(self.path, "safetensors file", error) from error
        self._names = frozenset(self._file.keys())
        self.metadata: dict[str, str] = self._file.metadata() or {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        try:
            return self._file.get_tensor(name)
        except (SafetensorError, TypeError, AttributeError) as error:  # a float type that NumPy lacks
            raise ValueError(f"NumPy cannot read the tensor {name!r} in {self.path!r}: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def is_own(self) -> bool:
        """Returns whether `save_safetensors` wrote the file."""
        return self.metadata.get("format") == OWN_FORMAT

    @property
    def stated(self) -> Stated:
        """Returns what the header states about the network. The first files state only its structure."""
        preprocessing = self._parsed("preprocessing", Preprocessing.from_config)
        names = self._parsed("class_names", list)
        classes = self["logits/bias"].size if names and "logits/bias" in self else None
        return Stated(self.metadata.get("structure"), preprocessing, tuple(names or ()), classes)

    def _parsed(self, key: str, convert: Callable[[Any], Any]) -> Any:
        text = self.metadata.get(key)
        try:
            return convert(json.loads(text)) if text else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"`{key}` in its header is not readable: {error!r}"
            raise damaged(self.path, "safetensors file", reason) from error


_PYTORCH = ("a zip archive", "a Python pickle")


def _read_pth(path: str | os.PathLike) -> dict[str, np.ndarray]:
    try:
        state, inside = _state_dict(read_torch_file(path))
    except RefusedError as error:
        if described(path) not in _PYTORCH:
            raise damaged(path, "PyTorch file", error) from error
        raise ValueError(
            f"{os.fspath(path)!r} contains more than tensors, which could run any code: {error}. In a program that you "
            "trust, save only the state dict (torch.save(model.state_dict(), FILE))."
        ) from error
    except ValueError as error:
        raise damaged(path, "PyTorch file", error, containers=_PYTORCH) from error
    if not state or not all(isinstance(value, np.ndarray) for value in state.values()):
        raise ValueError(f"{os.fspath(path)!r} contains no state dict (names and tensors).")
    if inside:
        warnings.warn(f"{os.fspath(path)!r}: reading the tensors under {inside!r}.", stacklevel=2)
    return {str(name): tensor for name, tensor in state.items()}


_STATE_DICTS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model", "module")
"""Keys under which training scripts save the weights. As in timm, averaged weights come first: the published accuracies
are theirs."""


def _state_dict(content: Any) -> tuple[Mapping[Any, Any], str]:
    """Returns the innermost state dict of a training checkpoint, and the keys on the way to it."""
    path: list[str] = []
    while isinstance(content, Mapping) and len(path) <= len(_STATE_DICTS):  # a dictionary may contain itself
        name = next((name for name in _STATE_DICTS if isinstance(content.get(name), Mapping)), None)
        if name is None:
            return content, "/".join(path)
        path.append(name)
        content = content[name]
    return {}, ""


class _Renamed(Mapping[str, np.ndarray]):
    """A mapping of tensors under other names, which reads each tensor on access."""

    def __init__(self, tensors: Mapping[str, np.ndarray], names: Mapping[str, str]) -> None:
        self._tensors, self._names = tensors, names

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _without_shared_prefix(tensors: Mapping[str, np.ndarray], path: str) -> Mapping[str, np.ndarray]:
    """Removes a prefix that all names share, such as those that DataParallel, Lightning, and `torch.compile` add."""
    names = [name for name in tensors if name != "n_averaged"]  # next to "module." in PyTorch's AveragedModel
    prefix = ""
    while len(names) > 1 and "." in names[0][len(prefix) :]:
        longer = names[0][: names[0].index(".", len(prefix)) + 1]
        if not all(name.startswith(longer) and len(name) > len(longer) for name in names):
            break
        prefix = longer
    if not prefix:
        return tensors
    warnings.warn(f"{path!r}: removing the prefix {prefix!r}, which all names share.", stacklevel=3)
    return _Renamed(tensors, {name.removeprefix(prefix): name for name in names})


READERS: dict[str, Callable[[Any], Mapping[str, np.ndarray]]] = {
    ".safetensors": SafetensorsFile,
    ".pth": _read_pth,
    ".pt": _read_pth,
    ".ckpt": _read_pth,
    ".bin": _read_pth,
    ".caffemodel": read_caffemodel,
}
"""The reader of each kind of checkpoint file, by the ending of its name."""


def read_tensors(path: str | os.PathLike) -> Mapping[str, np.ndarray]:
    """Reads the tensors of a checkpoint file, under the names that its authors chose.

    Anything that wrappers and training scripts add is removed, and a warning names it: a prefix that all
    names share ("module.", "model.", "_orig_mod."), and dictionaries that contain the weights next to other things
    ("state_dict", "model", "model_ema").

    Args:
        path: A file that ends in one of `READERS`.

    Returns:
        Arrays in the file's own layout.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is of another kind, damaged, or contains more than tensors.
        ImportError: A package for this format is missing (the message names the extra).
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no checkpoint at {os.fspath(path)!r}.")
    tensors = READERS[one_of("kind of checkpoint file", pathlib.Path(path).suffix, READERS)](path)
    if isinstance(tensors, SafetensorsFile) and tensors.is_own:
        return tensors
    return _without_shared_prefix(tensors, os.fspath(path))
