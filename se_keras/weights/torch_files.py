"""A reader of PyTorch's files without PyTorch: zip archives, and the series of pickles written before version 1.6.

Format: pytorch/pytorch, torch/serialization.py.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from se_keras.weights.pickles import Global, RefusedError, read_pickle

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
_UNTYPED = ("torch.storage", "UntypedStorage")
_WIDENED = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
_DTYPES = (*_STORAGES.values(), *_WIDENED, "uint16", "uint32", "uint64")


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A reference to the bytes of tensors.

    Args:
        key: Its key in the file.
        dtype: A name in `_DTYPES`; None if only the tensors state one.
        count: Number of elements, or of bytes without a dtype.
        start: First element, in a storage that is part of another.
    """

    key: str
    dtype: str | None
    count: int
    start: int = 0


@dataclasses.dataclass(frozen=True)
class TensorReference:
    """A tensor whose content has not been read; fields as in `torch.Tensor`, strides and offset in elements."""

    storage: _Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, content: bytes | memoryview) -> np.ndarray:
        """Returns the tensor; bfloat16 and float8, which NumPy lacks, as float32.

        Args:
            content: The bytes of its storage.

        Returns:
            A read-only array.

        Raises:
            ValueError: The tensor exceeds the storage.
        """
        dtype = _numpy_dtype(self.dtype)
        width = dtype.itemsize if self.storage.dtype else 1
        part = memoryview(content)[self.storage.start * width : (self.storage.start + self.storage.count) * width]
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, np.float32 if self.dtype in _WIDENED else dtype)
        strides = [stride * dtype.itemsize for stride in self.strides]
        array = np.ndarray(self.shape, dtype, part, self.offset * dtype.itemsize, strides)  # checks the bounds
        return array.astype(np.float32) if self.dtype in _WIDENED else array


def _numpy_dtype(name: str) -> np.dtype:
    if name not in _WIDENED:
        return np.dtype(name).newbyteorder("<")
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name))


def read_torch_file(path: str | os.PathLike) -> Any:
    """Reads a file that `torch.save` wrote, of either format, without running code from it.

    Args:
        path: The file.

    Returns:
        The saved object: numbers, text, lists, tuples, sets, and dictionaries, in which arrays take the place of
        tensors and parameters. Dictionaries keep their order.

    Raises:
        RefusedError: It contains anything else; the message names it.
        ValueError: The file is damaged, or of another kind.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ValueError("the file is empty")
        if zipfile.is_zipfile(file):
            return _read_archive(file)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _read_legacy(content)


def _read_archive(file: Any) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
            if "constants.pkl" in entries:
                raise RefusedError("a TorchScript program")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
                raise ValueError("its parts are compressed, which PyTorch never does")
            if sum(entry.file_size for entry in entries.values()) > os.fstat(file.fileno()).st_size:
                raise ValueError("its parts overlap")
            if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
                raise ValueError("it was written on a big-endian machine; save it again on another")
            if "data.pkl" not in entries:
                raise ValueError("it contains no data.pkl")
            with archive.open(entries["data.pkl"]) as stream:
                content = read_pickle(stream, _CALLS, _archive_storage)
            return _with_arrays(content, lambda storage: archive.read(entries[f"data/{storage.key}"]))
    except (zipfile.BadZipFile, KeyError, NotImplementedError, OSError, RuntimeError) as error:
        raise ValueError(f"the zip archive is damaged: {error}") from error


def _archive_storage(reference: Any) -> _Storage:
    kind, storage, key, _, count = reference
    return _storage(kind, storage, key, count)


def _read_legacy(content: mmap.mmap) -> Any:
    if read_pickle(content, {}, _none) != _LEGACY_MAGIC:
        raise RefusedError("a pickle that PyTorch did not write")
    version, machine = read_pickle(content, {}, _none), read_pickle(content, {}, _none)
    if version != _LEGACY_VERSION or not isinstance(machine, dict) or not machine.get("little_endian"):
        raise ValueError("its version of PyTorch's format is unknown, or it was written on a big-endian machine")
    storages: dict[str, _Storage] = {}

    def storage_of(reference: Any) -> _Storage:
        kind, storage, key, _, count, *views = reference
        root = storages.setdefault(key, _storage(kind, storage, key, count))
        if views in ([], [None]):
            return root
        ((_, start, count),) = views
        return dataclasses.replace(root, start=_natural(start), count=_natural(count))

    saved = read_pickle(content, _CALLS, storage_of)
    parts = {}
    for key in read_pickle(content, {}, _none):
        if key not in storages:
            raise ValueError("its list of storages does not fit its tensors")
        count = content.read(8)
        size = int.from_bytes(count, "little") * _numpy_dtype(storages[key].dtype or "uint8").itemsize
        parts[key] = content.read(size) if size <= content.size() else b""
        if len(count) < 8 or len(parts[key]) != size:
            raise ValueError("it ends within a tensor")
    return _with_arrays(saved, lambda storage: parts[storage.key])


def _none(_: Any) -> Any:
    raise RefusedError("a reference to something outside the pickle")


def _storage(kind: Any, storage: Any, key: Any, count: Any) -> _Storage:
    if kind != "storage" or not isinstance(key, str) or not isinstance(storage, Global):
        raise RefusedError("a reference to something other than the storage of a tensor")
    if (storage.module, storage.name) == _UNTYPED:
        return _Storage(key, None, _natural(count))
    if storage.module not in ("torch", "torch.storage") or storage.name not in _STORAGES:
        raise RefusedError(str(storage))
    return _Storage(key, _STORAGES[storage.name], _natural(count))


def _natural(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError("a size, stride, or offset is not a nonnegative integer")
    return number


def _with_arrays(content: Any, read: Callable[[_Storage], bytes]) -> Any:
    """Replaces the tensors in nested dictionaries, lists, and tuples by arrays; each storage is read once."""
    contents: dict[str, bytes] = {}
    replaced: dict[int, Any] = {}

    def array_of(tensor: TensorReference) -> np.ndarray:
        key = tensor.storage.key
        if key not in contents:
            contents[key] = read(tensor.storage)
        return tensor.array(contents[key])

    def value_of(value: Any) -> Any:
        if isinstance(value, (Global, _Storage)):
            raise RefusedError(f"{value} by itself")
        return array_of(value) if isinstance(value, TensorReference) else replaced.get(id(value), value)

    for container in _containers(content):  # the inner ones first
        if isinstance(container, dict):
            container.update({key: value_of(value) for key, value in container.items()})
        elif isinstance(container, list):
            container[:] = map(value_of, container)
        else:
            replaced[id(container)] = tuple(map(value_of, container))
    return value_of(content)


def _containers(content: Any) -> list[Any]:
    """Returns every dictionary, list, and tuple that can be reached, each once and after those that it contains."""
    found: list[Any] = []
    seen: set[int] = set()
    pending = [(content, False)]
    while pending:
        value, is_done = pending.pop()
        if is_done:
            found.append(value)
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            pending.append((value, True))
            pending += [(inner, False) for inner in (value.values() if isinstance(value, dict) else value)]
    return found


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any, dtype: str | None = None) -> TensorReference:
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise RefusedError("a tensor without a storage")
    if len(shape) != len(strides):
        raise ValueError("a tensor has different numbers of strides and axes")
    name = dtype or storage.dtype
    if name not in _DTYPES:
        raise RefusedError(f"a tensor of type {name}, which NumPy does not have")
    return TensorReference(storage, name, _natural(offset), tuple(map(_natural, shape)), tuple(map(_natural, strides)))


def _tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> TensorReference:
    if not isinstance(dtype, Global) or dtype.module != "torch":
        raise RefusedError("a tensor of an unknown type")
    return _tensor(storage, offset, shape, strides, dtype=dtype.name)


def _parameter(tensor: Any, *_: Any) -> TensorReference:
    if not isinstance(tensor, TensorReference):
        raise RefusedError("a parameter that is not a tensor")
    return tensor


def _size(sizes: Sequence[Any] = ()) -> tuple[int, ...]:
    return tuple(map(_natural, sizes))


_CALLS: dict[Global, Callable[..., Any]] = {
    Global("torch", "Size"): _size,
    Global("torch._utils", "_rebuild_tensor"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _tensor_of_dtype,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
}
"""The names that a pickle may call, and the function that is called in place of each."""
