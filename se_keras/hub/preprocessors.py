"""KerasHub's preprocessing layers, with the preprocessing of this package's networks."""

from __future__ import annotations

import math
from typing import Any

import keras
import keras_hub
import numpy as np

from se_keras.hub.backbones import SEBackbone


@keras.saving.register_keras_serializable("se_keras")
class SEImageConverter(keras_hub.layers.ImageConverter):
    """A KerasHub image converter that resizes and crops photos as `se_keras.preprocess` does.

    The shorter side is resized with antialiasing to `image_size / crop` pixels, and its center is cropped to
    `image_size`. Pixels differ from those of `preprocess` by at most one of 255 levels (bicubic: ten at sharp edges),
    because Pillow rounds and clips twice. `tf.data` pipelines do not round.

    Args:
        image_size: (height, width) in pixels of the result. None: photos keep their size.
        crop: Fraction of the shorter side that the center crop keeps, in (0, 1].
        **kwargs: The other arguments of KerasHub's `ImageConverter`, such as `interpolation`, `scale`, and `offset`.

    Call arguments:
        inputs: RGB images, 0 to 255, of any size: one, or a batch.

    Input shape:
        (height, width, 3) or (batch, height, width, 3); channels first under Keras' "channels_first" setting.

    Output shape:
        The same with the height and width of `image_size`.

    Raises:
        ValueError: `crop` is outside its range, or images are passed with bounding boxes.

    Example:

    >>> SEImageConverter((32, 32))(np.zeros((48, 64, 3), "uint8")).shape
    (32, 32, 3)
    """

    backbone_cls = SEBackbone

    def __init__(self, image_size: tuple[int, int] | None = None, *, crop: float = 0.875, **kwargs: Any) -> None:
        if not 0 < crop <= 1:
            raise ValueError(f"`crop` must be above 0 and at most 1; received crop={crop!r}.")
        super().__init__(**{"antialias": True, **kwargs})
        self.crop = crop
        self.resizing = _Resizing(
            *(image_size or (None, None)),
            crop=crop,
            interpolation=self.interpolation,
            data_format=self.data_format,
            dtype=self.dtype_policy,
        )

    def call(self, inputs: Any) -> Any:
        if isinstance(inputs, dict):
            raise ValueError(
                "SEImageConverter takes images without bounding boxes. For a detector, use the converter that "
                "KerasHub has for it, such as keras_hub.layers.RetinaNetImageConverter."
            )
        return super().call(inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "crop": self.crop}


class _Resizing(keras.layers.Resizing):
    """Resizing and center crop in one step, with the geometry of `images.resizing`."""

    def __init__(self, height: int | None, width: int | None, *, crop: float, **kwargs: Any) -> None:
        super().__init__(height, width, antialias=True, **kwargs)
        self.crop = crop

    def transform_images(self, images: Any, transformation: Any = None, training: bool = True) -> Any:
        axes = (self.height_axis, self.width_axis)
        scale, translation = self._geometry([self.backend.shape(images)[axis] for axis in axes])
        resized = self.backend.image.scale_and_translate(
            self.backend.cast(images, "float32"),
            output_shape=self.compute_output_shape(images.shape),
            scale=scale,
            translation=translation,
            spatial_dims=[axis % len(images.shape) for axis in axes],
            method=self.interpolation,
            antialias=True,
        )
        if keras.backend.is_int_dtype(images.dtype):
            resized = self.backend.numpy.round(resized)
        return self.backend.numpy.clip(resized, 0, 255)

    def _geometry(self, size: list[Any]) -> tuple[Any, Any]:
        """Returns the scale, and the position of the image's corner in the result, for (height, width)."""
        sides = (self.height, self.width)
        resized = [math.floor(side / self.crop) for side in sides]
        if not all(isinstance(side, int) for side in size):
            return self._dynamic_geometry(size, resized)
        larger = max(side / length for side, length in zip(resized, size, strict=True))
        found = [max(int(length * larger + 1e-6), side) for length, side in zip(size, sides, strict=True)]
        scale = [side / length for side, length in zip(found, size, strict=True)]
        corner = [-round((length - side) / 2) for length, side in zip(found, sides, strict=True)]
        return np.array(scale, "float32"), np.array(corner, "float32")

    def _dynamic_geometry(self, size: list[Any], resized: list[int]) -> tuple[Any, Any]:
        """Returns the same for a size that is known only when a TensorFlow graph runs."""
        ops = self.backend
        lengths = ops.cast(ops.numpy.stack(size), "float64")
        sides = np.array((self.height, self.width), "float64")
        larger = ops.numpy.max(np.array(resized, "float64") / lengths)
        found = ops.numpy.maximum(ops.numpy.floor(lengths * larger + 1e-6), sides)
        corner = -ops.numpy.round((found - sides) / 2)
        return ops.cast(found / lengths, "float32"), ops.cast(corner, "float32")


@keras.saving.register_keras_serializable("se_keras")
class SEImageClassifierPreprocessor(keras_hub.models.ImageClassifierPreprocessor):
    """A KerasHub preprocessor for `SEImageClassifier`.

    Args:
        image_converter: A layer that resizes photos, and normalizes them for a backbone without preprocessing.
            None: images stay as they are.
        **kwargs: `name` and others, as for any Keras layer.

    Raises:
        ValueError: The converter cannot resize the images.
    """

    backbone_cls = SEBackbone
    image_converter_cls = SEImageConverter


def image_converter(backbone: SEBackbone) -> SEImageConverter:
    """Returns the layer that prepares photos for a backbone, as `se_keras.preprocess` prepares them for its network.

    Args:
        backbone: The backbone. If it was built with `include_preprocessing=False`, the layer also normalizes.

    Returns:
        A layer that resizes RGB photos of any size, 0 to 255, to the backbone's input size, or to that of its network
        if the backbone takes any size.

    Example:

    >>> image_converter(SEBackbone("se_resnet20")).image_size
    (32, 32)
    """
    record = backbone.preprocessing
    size = backbone.image_shape[:2] if backbone.data_format == "channels_last" else backbone.image_shape[1:]
    normalization: dict[str, Any] = {}
    if not backbone.include_preprocessing:
        normalization = {
            "scale": [1 / (255 * std) for std in record.std],
            "offset": [-mean / std for mean, std in zip(record.mean, record.std, strict=True)],
        }
    return SEImageConverter(
        record.height_width if None in size else size,
        crop=record.crop,
        interpolation=record.interpolation,
        dtype="float32",
        **normalization,
    )
