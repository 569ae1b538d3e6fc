"""A batch is predicted without TensorFlow's warning about many compilations; its other warnings remain."""

from __future__ import annotations

import logging

import keras
import numpy as np

from se_keras.batch_prediction import predict_batch

WARNINGS = ("5 out of the last 8 calls to %s triggered tf.function retracing.", "The disk is full.")


class Warner(keras.Model):
    """A model that warns as TensorFlow does."""

    def predict_on_batch(self, x):
        for text in WARNINGS:
            logging.getLogger("tensorflow").warning(text, *(["f"] if "%s" in text else []))
        return x + 1


def test_only_the_warning_about_compilations_is_left_out(caplog, monkeypatch):
    logger = logging.getLogger("tensorflow")
    caplog.set_level(logging.WARNING, logger.name)  # whatever other tests' libraries made of the logger
    for name, value in {"disabled": False, "propagate": False, "handlers": [caplog.handler]}.items():
        monkeypatch.setattr(logger, name, value)
    model = Warner()
    np.testing.assert_array_equal(predict_batch(model, np.zeros(2)), np.ones(2))
    assert [record.msg for record in caplog.records] == [WARNINGS[1]]
    model.predict_on_batch(np.zeros(2))
    assert [record.msg for record in caplog.records] == [WARNINGS[1], *WARNINGS]
