"""The preprocessing of a network's images, as a record that needs neither Keras nor TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from se_keras.errors import check_count, check_normalization, one_of

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The preprocessing of a network's images: resize, crop, and normalization.

    Args:
        size: Height and width of the input in pixels: one number, or (height, width).
        crop: Fraction of the shorter side that the center crop keeps, in (0, 1].
        interpolation: "bilinear" or "bicubic"; both with antialiasing.
        mean: Mean of R, G, and B, as a fraction of 255.
        std: Standard deviation of R, G, and B, as a fraction of 255.

    Raises:
        ValueError: A value is outside the ranges above.
    """

    size: int | tuple[int, int] = 224
    crop: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        if not 0 < self.crop <= 1:
            raise ValueError(f"`crop` must be above 0 and at most 1; received crop={self.crop!r}.")
        check_normalization(self.mean, self.std)
        object.__setattr__(self, "size", _whole(self.size))

    @property
    def height_width(self) -> tuple[int, int]:
        """Returns the height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Builds a record from a mapping that may contain more, such as the config of an `ImagePreprocessing` layer.

        Args:
            config: Value of each field by its name. Lists instead of tuples, as JSON returns them, are accepted.

        Returns:
            The record.
        """
        given = {field.name: config[field.name] for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
        }
        return cls(**values)

    def for_channels(self, channels: int) -> Preprocessing:
        """Returns the preprocessing for another number of channels.

        Args:
            channels: The number, at least 1.

        Returns:
            The same with one mean and standard deviation per channel: those of R, G, B, R, ...; for one channel, their
            means.
        """
        known = len(self.mean)

        def adapted(values: tuple[float, ...]) -> tuple[float, ...]:
            return (sum(values) / known,) if channels == 1 else (values * -(-channels // known))[:channels]

        if channels == known:
            return self
        return dataclasses.replace(self, mean=adapted(self.mean), std=adapted(self.std))

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """Normalizes images for networks built with `include_preprocessing=False`: (pixel / 255 - mean) / std.

        Args:
            images: RGB, 0 to 255, channels last.

        Returns:
            Float32 array of the same shape.
        """
        return ((np.asarray(images, "float64") / 255 - self.mean) / self.std).astype("float32")


def _whole(size: Any) -> int | tuple[int, int]:
    if not isinstance(size, Sequence):
        return check_count("size", size)
    height, width = (check_count("size", number) for number in size)
    return height, width
