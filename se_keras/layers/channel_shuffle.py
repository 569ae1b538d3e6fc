"""ShuffleNet's channel shuffle."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from se_keras.errors import check_count
from se_keras.layers.data_formats import data_format_or_default


@keras.saving.register_keras_serializable("se_keras")
class ChannelShuffle(keras.layers.Layer):
    """Channel shuffle layer, which interleaves the channels of `groups` groups.

    It lets the next grouped convolution mix the groups: channel `g * n + i` (the i-th of n in group
    g) becomes channel `i * groups + g`.

    Reference: Zhang et al., "ShuffleNet", arXiv 1707.01083, section 3.1 and figure 1.

    Args:
        groups: Number of groups, at least 1. Must divide the number of channels.
        data_format: "channels_last" or "channels_first". Defaults to
            `keras.config.image_data_format()`.

    Input shape:
        (batch, height, width, channels), or (batch, channels, height, width) with
        "channels_first". Height and width may be None.

    Output shape:
        Same as the input shape.

    Raises:
        ValueError: When called, if `groups` does not divide the number of channels.

    Example:

    >>> ChannelShuffle(2)(np.arange(4.0).reshape(1, 1, 1, 4)).numpy().ravel()
    array([0., 2., 1., 3.], dtype=float32)
    """

    def __init__(self, groups: int, *, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = check_count("groups", groups)
        self.data_format = data_format_or_default(data_format)
        self.supports_masking = True
        self.built = type(self).build is keras.layers.Layer.build

    def call(self, inputs: Any) -> Any:
        shape: Any = self.compute_output_shape(ops.shape(inputs))
        # Mobile compilers support no rank above 4.
        if self.data_format == "channels_last":
            batch, height, width, channels = shape
            x = ops.reshape(inputs, (batch, height * width, self.groups, channels // self.groups))
            return ops.reshape(ops.transpose(x, (0, 1, 3, 2)), (batch, height, width, channels))
        batch, channels, height, width = shape
        x = ops.reshape(inputs, (batch, self.groups, channels // self.groups, height * width))
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (batch, channels, height, width))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        channels = input_shape[-1 if self.data_format == "channels_last" else 1]
        if channels is None or channels % self.groups:
            raise ValueError(
                f"`groups` must divide the number of channels; received groups={self.groups} for {channels} channels."
            )
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups, "data_format": self.data_format}
