"""Devices that TensorFlow runs on."""

from __future__ import annotations

import functools


@functools.cache
def tensorflow_has_gpu() -> bool:
    """Returns whether TensorFlow, which this function imports, sees a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
