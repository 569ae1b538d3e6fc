"""Other packages' log records are left out only where they mislead, and the root logger stays the user's."""

from __future__ import annotations

import logging

import pytest
from absl import logging as absl_logging

from se_keras.log_records import left_out
from se_keras.native_output import native_output_held


@pytest.fixture
def records():
    """A logger, and the texts that it lets through."""
    logger, texts = logging.Logger("other"), []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    logger.addHandler(handler)
    return logger, texts


@pytest.fixture(autouse=True)
def named(monkeypatch, records):
    monkeypatch.setitem(logging.root.manager.loggerDict, "other", records[0])


def test_only_unwanted_records_are_left_out_and_only_inside(records):
    logger, texts = records
    with left_out("other", lambda record: "noise" in record.msg):
        logger.warning("noise %d", 1)
        logger.warning("signal %d", 1)
    logger.warning("noise %d", 2)
    assert texts == ["signal 1", "noise 2"]


def test_blocks_that_overlap_end_apart(records):
    logger, texts = records
    first, second = (left_out("other", lambda record: "noise" in record.msg) for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # as in a thread that ends while another still predicts
    logger.warning("noise")
    second.__exit__(None, None, None)
    assert texts == []
    assert logger.filters == []


def test_an_error_ends_the_block(records):
    logger, _ = records
    with pytest.raises(KeyboardInterrupt), left_out("other", lambda record: True):
        raise KeyboardInterrupt
    assert logger.filters == []


@pytest.mark.parametrize("own", [[], [logging.NullHandler()]], ids=["none", "the user's"])
def test_absl_adds_no_handler_to_the_root_logger(monkeypatch, own):
    monkeypatch.setattr(logging.root, "handlers", list(own))
    with native_output_held():
        absl_logging.info("Function `%s` contains input name(s)", "serve")  # as tf.saved_model.save
    assert logging.root.handlers == own


def test_what_a_user_sets_up_meanwhile_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(logging.root, "handlers", [])
    with native_output_held():
        logging.basicConfig(filename=tmp_path / "log.txt")
    (handler,) = logging.root.handlers
    handler.close()
