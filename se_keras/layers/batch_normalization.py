"""Batch normalisation that trains in one operation on TensorFlow."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from se_keras.layers.tensorflow_devices import tensorflow_has_gpu


@keras.saving.register_keras_serializable("se_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, trained with TensorFlow's fused kernel.

    On TensorFlow, Keras composes the training pass of about ten operations, each of which walks
    over the whole feature map, forwards and back; on a CPU they take more time than the
    convolutions (see `benchmarks/training.py`). The fused kernel computes the same in one
    operation each way. Inference, other backends, masks, other ranks and axes, renormalisation
    and synchronised statistics stay with Keras.

    Arguments, weights and results are those of `keras.layers.BatchNormalization`.

    Input shape:
        Any; the fused kernel takes (batch, height, width, channels) with `axis=-1`.

    Output shape:
        The input shape.

    Raises:
        ValueError: As `keras.layers.BatchNormalization`, e.g. a mask of another rank.

    Example:

    >>> BatchNormalization()(np.ones((2, 5, 5, 8), "float32"), training=True).shape
    (2, 5, 5, 8)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if keras.backend.backend() == "tensorflow" and not tensorflow_has_gpu():
            # XLA takes the fused kernel apart again, which on a CPU costs more than it gains; this
            # lets `jit_compile="auto"`, the default of `compile`, decide against it.
            self.supports_jit = False

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises a batch.

        Args:
            inputs: Tensor of the layer's input shape.
            training: Whether to use, and remember, the statistics of this batch.
            mask: As in Keras.

        Returns:
            Tensor of the shape of `inputs`, in the layer's compute dtype.
        """
        if training and self.trainable and mask is None and self._is_fusible(inputs):
            return self._fused(inputs)
        return super().call(inputs, training=training, mask=mask)

    def _is_fusible(self, inputs: Any) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float16", "bfloat16", "float32")
            and not self.synchronized
            and not getattr(self, "renorm", False)  # from Keras 3.14 on
        )

    def _fused(self, inputs: Any) -> Any:
        import tensorflow as tf

        channels = inputs.shape[-1]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.cast(self.gamma, "float32") if self.scale else tf.ones(channels),
            offset=ops.cast(self.beta, "float32") if self.center else tf.zeros(channels),
            mean=tf.constant([], tf.float32),
            variance=tf.constant([], tf.float32),
            epsilon=self.epsilon,
        )
        # The kernel divides the squares by n - 1; Keras remembers them divided by n.
        count = ops.cast(tf.size(inputs, tf.int64) // channels, "float32")
        variance = variance * (count - 1) / count
        for variable, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            variable.assign(ops.cast(variable, "float32") * self.momentum + value * (1.0 - self.momentum))
        return ops.cast(outputs, self.compute_dtype)
