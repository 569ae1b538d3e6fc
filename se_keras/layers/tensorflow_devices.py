"""Devices that TensorFlow runs on."""

from __future__ import annotations

import functools


@functools.cache
def tensorflow_has_gpu() -> bool:
    """Returns whether TensorFlow, which this function imports, may use a GPU."""
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))
