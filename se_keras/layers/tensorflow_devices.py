"""What TensorFlow runs on."""

from __future__ import annotations

import functools


@functools.cache
def tensorflow_has_gpu() -> bool:
    """Whether TensorFlow, which is imported for this, sees a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
