"""The Squeeze-and-Excitation block as a Keras layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from se_keras.errors import check_count, one_of
from se_keras.layers.data_formats import data_format_or_default

SQUEEZES = ("avg", "max", "avgmax")
GATES = ("sigmoid", "hard_sigmoid", "tanh", "relu")
GATE_INITS = ("default", "identity")
LEAST = -3e38  # finite: converters turn `where` into products with 0 and 1


@keras.saving.register_keras_serializable("se_keras")
class SqueezeExcite(keras.layers.Layer):
    """Squeeze-and-Excitation layer, which rescales each channel by a learned function of all channels.

    Squeeze: the mean over all positions, one number per channel. Excitation: two projections,
    with a layer of `reduction` times fewer units between them, followed by the gate activation.

        z = mean(x);  s = sigma(W2 delta(W1 z + b1) + b2);  y = x * s

    Reference: Hu et al., "Squeeze-and-Excitation Networks", arXiv 1709.01507v4, section 3,
    figure 1, equations 2 to 4. Unlike equation 3, the projections have biases, as in the released
    networks. The paper's squeeze is the mean (a summary of it that says "max pooling"
    is wrong); max costs 0.29 points of ImageNet top-1 accuracy (Table 11).

    Everything from the input to the gates is computed in float32. Under a half-precision policy,
    the squeeze therefore neither overflows nor loses precision.

    Args:
        reduction: The paper's r, at least 1: number of channels divided by number of units.
        squeeze_channels: Number of units, at least 1. Defaults to
            `channels // reduction`; if given, `reduction` is not used.
        squeeze: "avg" (the paper's), "max", or "avgmax" (the mean of both).
        activation: The paper's delta, between the projections.
        gate_activation: The paper's sigma: "sigmoid", "hard_sigmoid", "tanh", or "relu"
            (section 6.3), another activation of Keras by its name, or a callable. To be loaded again, a
            function that is not an activation of Keras must be registered, as for any Keras layer.
        gate_init: "default" or "identity". With "identity", the untrained block returns exactly
            its input: the second projection starts at zero, and the gates are divided by their
            value there. Needs a gate activation with gate(0) != 0.
        use_bias: Whether both projections have a bias.
        data_format: "channels_last" or "channels_first". Defaults to
            `keras.config.image_data_format()`.
        kernel_initializer: Initializer of both kernels.
        bias_initializer: Initializer of both biases.
        kernel_regularizer: Regularizer of both kernels.

    Masks: the squeeze skips masked positions, and the layer passes the mask through. A sequence
    whose steps are all masked is squeezed to zeros.

    Call arguments:
        inputs: Float tensor of any scale.
        mask: Boolean tensor of shape (batch, steps). For images and volumes, the leading axes of the
            positions, for example (batch, depth) or (batch, height, width). True where a position
            counts.

    Input shape:
        (batch, steps, channels), (batch, height, width, channels), or
        (batch, depth, height, width, channels); channels second with "channels_first".
        All axes but the channels may be None.

    Output shape:
        Same as the input shape.

    Raises:
        ValueError: An argument is outside the ranges above. At build time: the number of channels is
            unknown or below `reduction`, or the rank is not 3, 4, or 5.

    Example:

    >>> SqueezeExcite(reduction=4)(np.ones((1, 7, 7, 16), "float32")).shape
    (1, 7, 7, 16)
    """

    def __init__(
        self,
        reduction: int = 16,
        *,
        squeeze_channels: int | None = None,
        squeeze: str = "avg",
        activation: str | Callable | None = "relu",
        gate_activation: str | Callable = "sigmoid",
        gate_init: str = "default",
        use_bias: bool = True,
        data_format: str | None = None,
        kernel_initializer: Any = "he_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(gate_activation, str) and not hasattr(keras.activations, gate_activation):
            one_of("gate_activation", gate_activation, GATES)
        self.reduction = check_count("reduction", reduction)
        self.squeeze_channels = None if squeeze_channels is None else check_count("squeeze_channels", squeeze_channels)
        self.squeeze = one_of("squeeze", squeeze, SQUEEZES)
        self.activation = keras.activations.get(activation)
        self.gate_activation = _gate_function(gate_activation)
        self.gate_init = one_of("gate_init", gate_init, GATE_INITS)
        self.use_bias = use_bias
        self.data_format = data_format_or_default(data_format)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.gate_scale = self._identity_scale() if gate_init == "identity" else 1.0
        self.supports_masking = True

    def _identity_scale(self) -> float:
        at_zero = float(ops.convert_to_numpy(self.gate_activation(ops.zeros((1,), "float32")))[0])
        if at_zero == 0:
            raise ValueError(
                "gate_init='identity' needs a gate activation with gate(0) != 0 to start the block as "
                f"the identity; {self.gate_activation!r} returns 0. Use gate_activation='sigmoid' or "
                "'hard_sigmoid', or gate_init='default'."
            )
        return 1.0 / at_zero

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) not in (3, 4, 5):
            raise ValueError(
                "SqueezeExcite takes inputs of rank 3 (sequences), 4 (images), or 5 (volumes); "
                f"{self.name!r} received shape {tuple(input_shape)}."
            )
        channels = input_shape[-1 if self.data_format == "channels_last" else 1]
        if channels is None:
            raise ValueError(
                f"SqueezeExcite needs to know the number of channels; {self.name!r} received shape "
                f"{tuple(input_shape)} with data_format={self.data_format!r}. Fix the channel axis of the input."
            )
        if self.squeeze_channels is None and self.reduction > channels:
            raise ValueError(
                f"`reduction` must not exceed the number of channels; {self.name!r} received "
                f"reduction={self.reduction} for {channels} channels. Lower `reduction`, or set `squeeze_channels`."
            )
        hidden = self.squeeze_channels or channels // self.reduction
        self.reduce_kernel = self._kernel("reduce_kernel", (channels, hidden), self.kernel_initializer)
        self.reduce_bias = self._bias("reduce_bias", hidden)
        zero_start = keras.initializers.Zeros() if self.gate_init == "identity" else None
        initializer = zero_start or _independent(self.kernel_initializer)
        self.expand_kernel = self._kernel("expand_kernel", (hidden, channels), initializer)
        self.expand_bias = self._bias("expand_bias", channels, zero_start)
        self.built = True

    def _kernel(self, name: str, shape: tuple[int, int], initializer: Any) -> Any:
        return self.add_weight(
            name=name, shape=shape, initializer=initializer, regularizer=self.kernel_regularizer, autocast=False
        )

    def _bias(self, name: str, width: int, initializer: Any = None) -> Any:
        if not self.use_bias:
            return None
        return self.add_weight(
            name=name, shape=(width,), initializer=initializer or self.bias_initializer, autocast=False
        )

    def gates(self, inputs: Any, mask: Any = None) -> Any:
        """Returns the gates by which `call` multiplies its input.

        Args:
            inputs: Tensor of the layer's input shape.
            mask: Which positions count, as in `call`. None: all.

        Returns:
            Tensor of shape (batch, 1, ..., channels), or (batch, channels, 1, ...) with
            "channels_first", in the layer's compute dtype. From 0 to 1 for a sigmoid
            (0 to 2 with `gate_init="identity"`, where 1 leaves a channel unchanged).

        Raises:
            ValueError: `inputs` is a symbolic Keras tensor; a model built from the result would keep
                the current weights. Build a model that ends in the layer's input, and call `gates` on
                its predictions.
        """
        if keras.backend.is_keras_tensor(inputs):
            raise ValueError(
                f"`gates` takes values, not a symbolic Keras tensor; received {inputs}. Build a model that ends in the "
                f"input of {self.name!r} (`layer.input`), and call `gates` on its predictions."
            )
        inputs = ops.convert_to_tensor(inputs, self.compute_dtype)
        if not self.built:
            self.build(tuple(inputs.shape))
        rank = len(inputs.shape)
        axes = tuple(range(1, rank - 1)) if self.data_format == "channels_last" else tuple(range(2, rank))
        channels, hidden = self.reduce_kernel.shape
        # Always (batch, 1, 1, channels) and 1x1 convolutions, which mobile GPU and NPU compilers
        # keep on the device. Reshaping axes of size 1 moves no data.
        squeezed = self._squeezed(inputs, axes) if mask is None else self._masked(inputs, axes, mask)
        summary = ops.reshape(squeezed, (-1, 1, 1, channels))
        x = self._project(summary, self.reduce_kernel, self.reduce_bias, (1, 1, channels, hidden))
        x = self._project(self.activation(x), self.expand_kernel, self.expand_bias, (1, 1, hidden, channels))
        x = self.gate_activation(x)
        if self.gate_scale != 1.0:
            x = x * self.gate_scale
        x = ops.cast(x, self.compute_dtype)
        ones = (1,) * (rank - 2)
        return ops.reshape(x, (-1, *ones, channels) if self.data_format == "channels_last" else (-1, channels, *ones))

    def _squeezed(self, inputs: Any, axes: tuple[int, ...]) -> Any:
        dtype = self.gate_dtype()
        parts = []
        if "avg" in self.squeeze:
            parts.append(ops.mean(ops.cast(inputs, dtype), axis=axes, keepdims=True))
        if "max" in self.squeeze:
            parts.append(ops.cast(ops.max(inputs, axis=axes, keepdims=True), dtype))
        return parts[0] if len(parts) == 1 else 0.5 * (parts[0] + parts[1])

    def _masked(self, inputs: Any, axes: tuple[int, ...], mask: Any) -> Any:
        """Returns `_squeezed` over the positions that the mask keeps, and zeros if it keeps none."""
        inputs = ops.cast(inputs, self.gate_dtype())
        counted = ops.cast(mask, "bool")
        for _ in range(len(inputs.shape) - 1 - len(counted.shape)):
            counted = ops.expand_dims(counted, -1)
        counted = ops.expand_dims(counted, -1 if self.data_format == "channels_last" else 1)
        counted = ops.broadcast_to(counted, ops.shape(inputs))
        count = ops.sum(ops.cast(counted, inputs.dtype), axis=axes, keepdims=True)
        parts = []
        if "avg" in self.squeeze:
            total = ops.sum(ops.where(counted, inputs, 0.0), axis=axes, keepdims=True)
            parts.append(total / ops.maximum(count, 1.0))
        if "max" in self.squeeze:
            greatest = ops.max(ops.where(counted, inputs, LEAST), axis=axes, keepdims=True)
            parts.append(ops.where(count > 0, greatest, 0.0))
        return parts[0] if len(parts) == 1 else 0.5 * (parts[0] + parts[1])

    def _project(self, x: Any, kernel: Any, bias: Any, shape: tuple[int, int, int, int]) -> Any:
        kernel = ops.reshape(ops.cast(kernel, x.dtype), shape)
        x = ops.conv(x, kernel, padding="valid", data_format="channels_last")
        return x if bias is None else x + ops.cast(bias, x.dtype)

    def gate_dtype(self) -> str:
        """Returns the dtype of everything from the input to the gates: float32, or float64 under that policy."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def call(self, inputs: Any, mask: Any = None) -> Any:
        return inputs * self.gates(inputs, mask)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "reduction": self.reduction,
            "squeeze_channels": self.squeeze_channels,
            "squeeze": self.squeeze,
            "activation": keras.activations.serialize(self.activation),
            "gate_activation": keras.activations.serialize(self.gate_activation),
            "gate_init": self.gate_init,
            "use_bias": self.use_bias,
            "data_format": self.data_format,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _independent(initializer: Any) -> Any:
    """Returns an initializer like this one that draws other numbers; else both kernels would begin with the same."""
    config = initializer.get_config() if isinstance(initializer, keras.initializers.Initializer) else {}
    if not isinstance(config.get("seed", ""), int | None):  # without a seed, or with a generator, which goes on
        return initializer
    seed = config["seed"]
    return type(initializer).from_config({**config, "seed": None if seed is None else seed + 1})


def _gate_function(gate_activation: str | Callable) -> Callable:
    """Returns the gate activation: of an operation that is also an activation, the latter, as after loading."""
    function = keras.activations.get(gate_activation)
    name = getattr(function, "__name__", "")
    return keras.activations.get(name) if name in GATES and function is getattr(keras.ops, name) else function
