"""Batch normalization that trains in one operation on TensorFlow."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from se_keras.layers.tensorflow_devices import tensorflow_has_gpu


@keras.saving.register_keras_serializable("se_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization layer that trains with TensorFlow's fused kernel.

    On TensorFlow, Keras builds the training pass from about ten operations, each of which reads the
    whole feature map, forward and backward. On a CPU, they take more time than the convolutions (see
    `benchmarks/training.py`). The fused kernel computes the same result in one operation in each
    direction. Inference, other backends, masks, other ranks and axes, renormalization, and
    synchronized statistics use Keras' implementation.

    Arguments, weights, and results are those of `keras.layers.BatchNormalization`.

    Input shape:
        Any. The fused kernel takes (batch, height, width, channels) with `axis=-1`.

    Output shape:
        Same as the input shape.

    Raises:
        ValueError: As in `keras.layers.BatchNormalization`, for example for a mask of another rank.

    Example:

    >>> BatchNormalization()(np.ones((2, 5, 5, 8), "float32"), training=True).shape
    (2, 5, 5, 8)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if keras.backend.backend() == "tensorflow" and not tensorflow_has_gpu():
            # XLA decomposes the fused kernel, which costs more on a CPU than XLA gains. This makes
            # `jit_compile="auto"`, the default of `compile`, leave XLA off.
            self.supports_jit = False

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes a batch.

        Args:
            inputs: Tensor of the layer's input shape.
            training: Whether to normalize with the statistics of this batch, and update the moving
                statistics with them.
            mask: As in `keras.layers.BatchNormalization`.

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
        # The kernel divides the sum of squares by n - 1, Keras' moving variance by n.
        count = ops.cast(tf.size(inputs, tf.int64) // channels, "float32")
        variance = variance * (count - 1) / count
        for variable, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            variable.assign(ops.cast(variable, "float32") * self.momentum + value * (1.0 - self.momentum))
        return ops.cast(outputs, self.compute_dtype)
