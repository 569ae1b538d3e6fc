"""Log records of other packages are left out only where they mislead."""

from __future__ import annotations

import logging

import pytest

from se_keras.log_records import left_out


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
