"""Normalization of pixels to a network's scale, inside the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from se_keras.errors import check_count, check_normalization
from se_keras.layers.data_formats import data_format_or_default


@keras.saving.register_keras_serializable("se_keras")
class ImagePreprocessing(keras.layers.Layer):
    """A layer that normalizes RGB pixels to the scale a network was trained on: (pixel / 255 - mean) / std.

    The layer computes in float32 under every dtype policy. It also stores how photos are resized and cropped to the
    network's input size, and the names of the classes, so a saved model states its own preprocessing and class names.

    Args:
        mean: Mean of each channel, as a fraction of 255.
        std: Standard deviation (not variance) of each channel, as a fraction of 255.
        size: Height and width in pixels that the network was made for: one number, or both.
        crop: Fraction of the shorter side that the center crop keeps, in (0, 1].
        interpolation: "bilinear" or "bicubic", for resizing.
        data_format: "channels_last" or "channels_first". Defaults to
            `keras.config.image_data_format()`.
        class_names: Class names of the model, see `se_keras.set_class_names`.
        classifier: Name of the model's last layer, whose outputs `class_names` name.

    Call arguments:
        inputs: RGB images, 0 to 255, of any dtype.

    Input shape:
        (batch, height, width, 3), or (batch, 3, height, width) with "channels_first".

    Output shape:
        Same as the input shape, in float32.

    Raises:
        ValueError: `mean` and `std` differ in length, or a `std` is not positive.

    Example:

    >>> layer = ImagePreprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> float(layer(np.full((1, 1, 1, 3), 255, "uint8"))[0, 0, 0, 0])
    1.0
    """

    def __init__(
        self,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        size: int | Sequence[int] = 224,
        crop: float = 0.875,
        interpolation: str = "bilinear",
        data_format: str | None = None,
        class_names: Sequence[str] = (),
        classifier: str = "",
        **kwargs: Any,
    ) -> None:
        kwargs["autocast"] = False  # half precision would round resized pixels, which are not integers
        super().__init__(**kwargs)
        check_normalization(mean, std)
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self.size: Any = size
        if isinstance(size, Sequence):
            self.size = tuple(check_count("size", side) for side in size)
        else:
            self.size = check_count("size", size)
        self.crop = crop
        self.interpolation = interpolation
        self.data_format = data_format_or_default(data_format)
        self.class_names = tuple(class_names)
        self.classifier = classifier
        self.supports_masking = True
        self.built = type(self).build is keras.layers.Layer.build

    def call(self, inputs: Any) -> Any:
        shape = (1, 1, 1, -1) if self.data_format == "channels_last" else (1, -1, 1, 1)
        factors = [1 / (255 * std) for std in self.std]
        offset = ops.reshape(
            ops.convert_to_tensor([-mean / std for mean, std in zip(self.mean, self.std, strict=True)], "float32"),
            shape,
        )
        images = ops.cast(inputs, "float32")
        if any(factor != 1 for factor in factors):  # converters may keep a product with 1
            images = images * ops.reshape(ops.convert_to_tensor(factors, "float32"), shape)
        return images + offset

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, dtype="float32")  # whatever the dtype policy

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("autocast", None)
        names = {"class_names": list(self.class_names), "classifier": self.classifier} if self.class_names else {}
        return {
            **config,
            "mean": self.mean,
            "std": self.std,
            "size": self.size,
            "crop": self.crop,
            "interpolation": self.interpolation,
            "data_format": self.data_format,
            **names,
        }
