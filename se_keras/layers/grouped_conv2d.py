"""Grouped convolution that trains on a CPU and exports as one native operation."""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops

from se_keras.layers.tensorflow_devices import tensorflow_has_gpu


@keras.saving.register_keras_serializable("se_keras")
class GroupedConv2D(keras.layers.Conv2D):
    """2D convolution layer with `groups` that does not need XLA on TensorFlow.

    On TensorFlow, Keras wraps a grouped convolution in an XLA function that must be compiled: serving
    binaries without XLA reject the SavedModel, and on a CPU it is slow (a training step of a 3x3
    convolution with 32 groups takes more than 300 times as long, see `benchmarks/grouped_conv.py`).
    TensorFlow's own kernel supports both passes in builds with oneDNN, and on GPUs. Where it
    lacks the gradient, and with JAX on a CPU, one matrix product computes the same sums.

    Arguments, weights, and results are those of `keras.layers.Conv2D`.

    Input shape:
        (batch, height, width, channels), or (batch, channels, height, width) with
        "channels_first".

    Raises:
        ValueError: As in `keras.layers.Conv2D`, for example if `groups` does not divide the
            number of channels.

    Example:

    >>> GroupedConv2D(8, 3, groups=4)(np.ones((1, 5, 5, 8), "float32")).shape
    (1, 3, 3, 8)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if keras.backend.backend() == "tensorflow" and not tensorflow_has_gpu():
            # XLA's gradient of a grouped convolution is the slow part on a CPU. This makes
            # `jit_compile="auto"`, the default of `compile`, leave XLA off for the model.
            self.supports_jit = False

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Computes the convolution.

        Args:
            inputs: Tensor of the layer's input shape.
            kernel: Tensor of shape (height, width, channels / groups, filters).

        Returns:
            Tensor of the layer's output shape.
        """
        backend = keras.backend.backend()
        if backend == "tensorflow" and _tensorflow_is_native():
            return self._native_tensorflow(inputs, kernel)
        simple = self.data_format == "channels_last" and tuple(self.dilation_rate) == (1, 1)
        if simple and (backend == "tensorflow" or (backend == "jax" and _jax_is_on_cpu())):
            return grouped_matmul(inputs, kernel, strides=self.strides, padding=self.padding)
        return super().convolution_op(inputs, kernel)

    def _native_tensorflow(self, inputs: Any, kernel: Any) -> Any:
        import tensorflow as tf

        return tf.nn.convolution(
            inputs,
            kernel,
            strides=list(self.strides),
            padding=self.padding.upper(),
            data_format="NHWC" if self.data_format == "channels_last" else "NCHW",
            dilations=list(self.dilation_rate),
        )


def grouped_matmul(inputs: Any, kernel: Any, *, strides: tuple[int, int], padding: str) -> Any:
    """Computes a grouped convolution as one product of patches and kernel: exact, differentiable, on any backend.

    Args:
        inputs: Tensor of shape (batch, height, width, channels).
        kernel: Tensor of shape (kernel height, kernel width, channels / groups, filters).
        strides: Strides along height and width.
        padding: "valid" or "same". As in TensorFlow, "same" puts an odd pixel at the end.

    Returns:
        Tensor of shape (batch, new height, new width, filters).
    """
    kernel_height, kernel_width, group_channels, filters = kernel.shape
    groups = inputs.shape[-1] // group_channels
    if padding == "same":
        inputs = _pad_same(inputs, (kernel_height, kernel_width), strides)
    _, height, width, _ = ops.shape(inputs)
    rows = (height - kernel_height) // strides[0] + 1
    columns = (width - kernel_width) // strides[1] + 1
    taps = [
        inputs[:, i : i + (rows - 1) * strides[0] + 1 : strides[0], j : j + (columns - 1) * strides[1] + 1 : strides[1]]
        for i in range(kernel_height)
        for j in range(kernel_width)
    ]
    patches = ops.concatenate([ops.reshape(tap, (-1, rows, columns, groups, group_channels)) for tap in taps], axis=-1)
    matrix = ops.reshape(kernel, (kernel_height * kernel_width * group_channels, groups, filters // groups))
    product = ops.einsum("bhwgk,kgf->bhwgf", patches, matrix)
    return ops.reshape(product, (-1, rows, columns, filters))


def _pad_same(inputs: Any, kernel_size: tuple[int, int], strides: tuple[int, int]) -> Any:
    _, *sizes, _ = ops.shape(inputs)
    pads = []
    for size, kernel, stride in zip(sizes, kernel_size, strides, strict=True):
        total = (-(-size // stride) - 1) * stride + kernel - size
        total = max(total, 0) if isinstance(total, int) else ops.maximum(total, 0)
        pads.append((total // 2, total - total // 2))
    return ops.pad(inputs, ((0, 0), *pads, (0, 0)))


@functools.cache
def _tensorflow_is_native() -> bool:
    """Returns whether TensorFlow's own kernel has the gradient here; tries it, because no public call reports it."""
    import tensorflow as tf

    if tensorflow_has_gpu():
        return True
    with tf.init_scope():
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=(1, 3, 3, 4),
                filter=tf.ones((3, 3, 2, 4)),
                out_backprop=tf.ones((1, 3, 3, 4)),
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True


@functools.cache
def _jax_is_on_cpu() -> bool:
    import jax

    return jax.default_backend() == "cpu"
