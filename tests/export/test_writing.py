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


def test_threads_share_one_redirection(capfd):
    first, second = native_output_held(), native_output_held()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # as in a thread that ends while another still exports
    os.write(2, b"chatter")
    second.__exit__(None, None, None)
    os.write(2, b"visible")
    assert capfd.readouterr().err == "visible"


def test_a_process_without_standard_error_exports_too(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    with native_output_held():
        os.write(2, b"chatter")
