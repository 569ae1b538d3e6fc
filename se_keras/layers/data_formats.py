"""Places of the channels in the inputs of layers."""

from __future__ import annotations

import keras

from se_keras.errors import one_of


def data_format_or_default(data_format: str | None) -> str:
    """Returns the data format of a layer.

    Args:
        data_format: "channels_last", "channels_first", or None.

    Returns:
        The same, or `keras.config.image_data_format()` for None.

    Raises:
        ValueError: It is anything else.
    """
    return one_of("data_format", data_format or keras.config.image_data_format(), ("channels_last", "channels_first"))
