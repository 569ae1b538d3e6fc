"""PyTorch's files, read without PyTorch: bit for bit as PyTorch reads them, and no other program than a few lines."""

import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from se_keras.weights.pickles import RefusedError
from se_keras.weights.torch_files import read_torch_file

OLD_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
COMPLEX = ("complex64", "complex128")
NEW_DTYPES = ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
FORMATS = pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])


def assert_same(ours, theirs):
    """Compares with what PyTorch read; the types that NumPy lacks become float32."""
    torch = sys.modules["torch"]
    if isinstance(theirs, torch.Tensor):
        theirs = theirs.detach()
        theirs = theirs.float() if str(theirs.dtype).startswith(("torch.bfloat16", "torch.float8")) else theirs
        expected = theirs.numpy()
        assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)
        assert ours.tobytes() == expected.tobytes()
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    else:
        assert (type(ours), ours) == (type(theirs), theirs)


def checkpoint(torch, dtypes):
    """What training scripts save, with views of one storage, strides, and every type."""
    base = torch.arange(24.0).reshape(4, 6)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    return {
        "state_dict": module.state_dict(),
        "views": [base, base.t(), base[1:3, ::2], base[3, 5], torch.ones(1).expand(5, 3)],
        "parameter": torch.nn.Parameter(base * 2),
        "empty": torch.zeros(0, 3),
        "plain": [1, -3, 2**40, 2**70, 2.5, None, True, "é", b"bytes", (1, (2,)), {"x": {1, 2}}],
        "shape": base.shape,
        **{name: (torch.rand(7) * 3).to(getattr(torch, name)) for name in dtypes},
    }


@pytest.mark.torch
@FORMATS
@pytest.mark.parametrize("protocol", [2, 5])
def test_a_file_is_read_as_pytorch_reads_it(archive, protocol, tmp_path):
    torch = pytest.importorskip("torch")
    dtypes = OLD_DTYPES + COMPLEX + (NEW_DTYPES if archive else ())  # PyTorch itself cannot read the others again
    path = tmp_path / "model.pth"
    torch.save(checkpoint(torch, dtypes), path, _use_new_zipfile_serialization=archive, pickle_protocol=protocol)
    assert_same(read_torch_file(path), torch.load(path, weights_only=False))


@pytest.mark.torch
@FORMATS
def test_a_file_cut_short_anywhere_is_an_error(archive, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pth"
    torch.save(checkpoint(torch, OLD_DTYPES), path, _use_new_zipfile_serialization=archive)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 97)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"\w"):
            read_torch_file(path)


LEGACY_START = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]


def legacy(program, storages=b"\x80\x02]."):
    """A file of the format before PyTorch 1.6 that contains this pickle."""
    return b"".join([*LEGACY_START, program, storages])


def archived(program):
    """A file of today's format that contains this pickle."""

    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", program)
            archive.writestr("model/byteorder", b"little")

    return write


class Run:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("run",)


class Plain:
    """Sets attributes when it is unpickled."""

    def __init__(self):
        self.shape = (1, 2)


DEEP = b"\x80\x02)" + b"\x85" * 300_000  # a tuple in a tuple in a tuple ...
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
HOSTILE = {
    "a call": (pickle.dumps(Run(), 2), "mkdir"),
    "a call in protocol 5": (pickle.dumps(Run(), 5), "mkdir"),
    "an object": (pickle.dumps(Plain(), 2), "test_torch_files|instruction NEWOBJ"),
    "an object of protocol 0": (pickle.dumps(Plain(), 0), "instruction"),
    "a class with arguments": (b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.", r"builtins\.eval"),
    "state of a function": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.", "instruction for a OrderedDict"),
    "state of a list": (b"\x80\x02]}b.", "instruction for a OrderedDict"),
    "an extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "a persistent name": (b"\x80\x02Pname\n.", "PERSID"),
    "an instance": (b"\x80\x02(ios\nsystem\n.", "INST"),
    "a new object": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
    "a reserved buffer": (b"\x80\x05\x96" + struct.pack("<Q", 2**50) + b".", "pickle|expected|BYTEARRAY8"),
    "huge text": (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.", "pickle|expected|BINUNICODE8"),
    "huge bytes": (b"\x80\x04B" + struct.pack("<I", 2**32 - 1) + b"a.", "expected"),
    "a tuple as a key": (b"\x80\x02}" + DEEP[2:] + b"Ns.", "a tuple as a key"),
    "a deep key of a call": (b"\x80\x02ccollections\nOrderedDict\n]" + DEEP[2:] + b"N\x86a\x85R.", "a tuple as a key"),
    "nothing to pop": (b"\x80\x02a.", "damaged"),
    "no mark": (b"\x80\x02t.", "damaged"),
    "an unknown memo": (b"\x80\x02h\x05.", "damaged"),
    "another storage": (b"\x80\x02" + STORAGE.replace(b"FloatStorage", b"QInt8Storage") + b".", "QInt8Storage"),
    "a storage": (b"\x80\x02" + STORAGE + b".", "by itself|damaged"),
    "a name": (b"\x80\x02cos\nsystem\n.", r"os\.system by itself"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("write", ["zip", "legacy"])
def test_a_hostile_pickle_is_refused_and_nothing_runs(name, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program, reason = HOSTILE[name]
    path = tmp_path / "model.pth"
    if write == "zip":
        archived(program)(path)
    else:
        path.write_bytes(legacy(program))
    with pytest.raises(ValueError, match=reason):
        read_torch_file(path)
    assert not (tmp_path / "run").exists()


def test_a_large_memo_index_takes_no_memory(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(legacy(b"\x80\x02Nr\xff\xff\xff\xff."))
    assert read_torch_file(path) is None


def test_lists_and_dictionaries_that_contain_themselves_are_read(tmp_path):
    path = tmp_path / "model.pth"
    around: dict = {}
    around["model"] = around
    around["list"] = [around]
    path.write_bytes(legacy(pickle.dumps(around, 2)))
    content = read_torch_file(path)
    assert content["model"] is content
    assert content["list"][0] is content


def tensor(offset=0, shape=(2, 2), strides=(2, 1), count=4):
    """A legacy file with one tensor of 4 numbers, which states this shape."""

    def number(value):
        return b"M" + struct.pack("<H", value)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu" + number(count) + b"NtQ"
    program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset)
    program += numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtR."
    content = struct.pack("<q", 4) + np.arange(4, dtype="<f4").tobytes()
    return legacy(program, b"\x80\x02]X\x01\0\0\x000a.") + content


def test_a_tensor_stays_within_its_storage(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(tensor())
    np.testing.assert_array_equal(read_torch_file(path), [[0, 1], [2, 3]])
    path.write_bytes(tensor(offset=1, shape=(3,), strides=(1,)))
    np.testing.assert_array_equal(read_torch_file(path), [1, 2, 3])
    for stated in ({"offset": 1}, {"strides": (3, 1)}, {"shape": (3, 2)}, {"count": 3}, {"strides": (1,)}):
        path.write_bytes(tensor(**stated))
        with pytest.raises(ValueError, match=r"\w"):
            read_torch_file(path)


def test_compressed_and_overlapping_archives_are_refused(tmp_path):
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\x80\x02N." + b"\0" * 10_000_000)
    with pytest.raises(ValueError, match="compressed"):
        read_torch_file(path)


def test_a_program_of_torchscript_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02N.")
        archive.writestr("model/constants.pkl", b"\x80\x02N.")
    with pytest.raises(RefusedError, match="TorchScript"):
        read_torch_file(path)


def test_an_ordered_dictionary_keeps_its_order_and_loses_what_is_attached(tmp_path):
    state = OrderedDict([("b", 1), ("a", 2)])
    state._metadata = OrderedDict(version=2)
    path = tmp_path / "model.pth"
    path.write_bytes(legacy(pickle.dumps(state, 2)))
    content = read_torch_file(path)
    assert list(content.items()) == [("b", 1), ("a", 2)]
    assert not hasattr(content, "_metadata")


def test_neither_pytorch_nor_a_backend_is_imported(tmp_path):
    (tmp_path / "model.pth").write_bytes(tensor())
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from se_keras.weights.torch_files import read_torch_file\n"
        f"print(read_torch_file({os.fspath(tmp_path / 'model.pth')!r}).sum())\n"
        "assert not {'tensorflow', 'jax'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "6.0\n"
