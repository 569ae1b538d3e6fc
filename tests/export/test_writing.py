"""Exports are whole under their final name, or absent."""

import os

import pytest

from se_keras.files import replacing
from se_keras.native_output import native_output_held


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_failure_leaves_what_was_there(kind, tmp_path):
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("old")
    else:
        target.mkdir()
        (target / "old").touch()

    def fail():
        with replacing(target, overwrite=True) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert os.listdir(tmp_path) == ["target"]
    assert target.read_text() == "old" if kind == "file" else (target / "old").exists()


def test_native_output_is_held_and_shown_on_failure(capfd):
    with native_output_held():
        os.write(2, b"chatter")
    assert capfd.readouterr().err == ""

    def fail():
        with native_output_held():
            os.write(2, b"the reason")
            raise RuntimeError

    with pytest.raises(RuntimeError) as raised:
        fail()
    notes = getattr(raised.value, "__notes__", [])  # Python 3.10 knows none
    assert "the reason" in "".join([*notes, capfd.readouterr().err])
