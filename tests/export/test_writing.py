"""What compiled code prints while an export is written."""

import os

import pytest

from se_keras.native_output import native_output_held


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
