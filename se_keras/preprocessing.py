"""Preprocessing of image files and arrays to a network's input."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import keras
import numpy as np
from PIL import Image

from se_keras.images.pixels import check_pixels, is_divided, to_rgb
from se_keras.images.reading import decode, load_image
from se_keras.images.record import Preprocessing
from se_keras.images.resizing import resized_and_cropped

_FILES = (str, os.PathLike, Image.Image, bytes, bytearray, memoryview)
_KINDS = "a path, bytes, a file opened in binary mode, a PIL image, or an array of shape (height, width, 3)"


def preprocess(images: Any, preprocessing: Preprocessing | keras.Model) -> np.ndarray:
    """Decodes, resizes (shorter side, antialiased), and center-crops images to a network's input.

    Args:
        images: A path, the bytes of an image file or a file opened in binary mode, a PIL image, an
            array of shape (height, width, 3) or (batch, height, width, 3) with RGB values 0 to
            255, or several of these, of any sizes: a list or another iterable. Photos
            are rotated upright according to their EXIF data; gray and transparent images become
            RGB. Files are JPEG, PNG, BMP, GIF, TIFF, WebP, or PPM (`images.reading.FORMATS`).
        preprocessing: A `Preprocessing`, or a model that includes its preprocessing (built
            with `include_preprocessing=True`, the default), possibly in a nested model.

    Returns:
        Float32 array of shape (batch, height, width, 3), RGB, 0 to 255; channels second for a model with
        "channels_first", or for a `Preprocessing` under that setting of Keras. Pass it to the model unchanged.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: An image cannot be read (the message names its path) or has more pixels than the
            limits in `images.limits` allow; an array has the wrong shape, dtype, or range; there is no
            image; `images` are something else; or the model does not include its preprocessing.

    Warns:
        UserWarning: All arrays contain floats from 0 to 1, as if they had been divided by 255.

    Example:

    >>> preprocess(np.zeros((480, 640, 3), "uint8"), Preprocessing()).shape
    (1, 224, 224, 3)
    """
    record = preprocessing if isinstance(preprocessing, Preprocessing) else preprocessing_of(preprocessing)
    found = None if isinstance(preprocessing, Preprocessing) else preprocessing_layer(preprocessing)
    data_format = keras.config.image_data_format() if found is None else found[0].data_format
    given = [_array(image) for image in image_sequence(images)]
    if not given:
        raise ValueError("`images` is empty; pass at least one image.")
    _warn_of_divided(given)
    batch = np.stack([_resized(image, record) for image in given])
    return batch if data_format == "channels_last" else batch.transpose(0, 3, 1, 2)


def preprocessing_of(model: keras.Model) -> Preprocessing:
    """Returns the preprocessing that a model includes.

    Args:
        model: A model whose input passes through an `ImagePreprocessing` layer, its own or that
            of a nested model.

    Returns:
        The preprocessing, with the model's own input size if it is fixed.

    Raises:
        ValueError: The model has no such layer.
    """
    found = preprocessing_layer(model)
    if found is None:
        raise ValueError(
            f"The model {model.name!r} was built without its preprocessing. Pass a `Preprocessing` instead "
            "(se_keras.get_preprocessing returns that of a network, such as 'se_resnet50', or of a checkpoint, such as "
            "'se_resnet50.caffe_in1k'), then call its `normalize` on the result."
        )
    layer, models = found
    preprocessing = Preprocessing.from_config(layer.get_config())
    sizes = (_image_size(holder, layer.data_format) for holder in models)
    return dataclasses.replace(
        preprocessing, size=next((size for size in sizes if size is not None), preprocessing.size)
    )


def stored_preprocessing(model: keras.Model) -> Preprocessing | None:
    """Returns the preprocessing that a model was built with, whatever the model's input size.

    Args:
        model: Any model.

    Returns:
        The preprocessing, with the size that the network was made for; None if the model does not
        include it.
    """
    found = preprocessing_layer(model)
    return None if found is None else Preprocessing.from_config(found[0].get_config())


def preprocessing_layer(model: keras.Model, *outer: keras.Model) -> tuple[Any, tuple[keras.Model, ...]] | None:
    """Returns the layer that holds a model's preprocessing.

    Args:
        model: Any model.
        outer: The models around it, from the outermost.

    Returns:
        The first `ImagePreprocessing` layer, and the models around it from the outermost to its own; None if there is
        none.
    """
    from se_keras.layers import ImagePreprocessing

    for layer in model.layers:
        if isinstance(layer, ImagePreprocessing):
            return layer, (*outer, model)
        found = preprocessing_layer(layer, *outer, model) if isinstance(layer, keras.Model) else None
        if found is not None:
            return found
    return None


def _image_size(model: keras.Model, data_format: str) -> tuple[int, int] | None:
    """Returns height and width of a model's input, if it has one input of a fixed size."""
    shape = getattr(model, "input_shape", None)  # a sequential model that was never called has none
    if not isinstance(shape, tuple) or len(shape) != 4:
        return None
    size = shape[1:3] if data_format == "channels_last" else shape[2:4]
    return None if None in size else size


def image_sequence(images: Any) -> Sequence[Any]:
    """Returns one image or several as a sequence of images.

    Args:
        images: As for `preprocess`.

    Returns:
        The images, possibly none. Their content is not checked.

    Raises:
        ValueError: An array has another shape, or `images` are something else.
    """
    if isinstance(images, _FILES) or hasattr(images, "read"):
        return [images]
    if getattr(images, "ndim", 0) == 1 and getattr(images.dtype, "kind", None) in ("O", "T", "U"):
        return list(images)
    if hasattr(images, "ndim"):
        if images.ndim not in (3, 4) or images.shape[-1] != 3:
            raise ValueError(
                "An array of images must have shape (height, width, 3) or (batch, height, width, 3); "
                f"received shape {tuple(images.shape)}."
            )
        return images if images.ndim == 4 else images[None]
    if isinstance(images, Mapping | Set) or not (isinstance(images, Iterable) or hasattr(images, "__getitem__")):
        raise ValueError(f"`images` must be {_KINDS}, or a list of these; received {_described(images)}.")
    is_sequence = hasattr(images, "__len__") and hasattr(images, "__getitem__")
    return images if is_sequence else list(images)


def _array(image: Any) -> Any:
    """Converts an image to a checked array, or to bytes; paths and PIL images stay as they are."""
    if hasattr(image, "read"):
        image = _content(image)
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, _FILES):
        return image
    detach = getattr(image, "detach", None)  # a tensor of Torch, perhaps with a gradient, or on a GPU
    image = np.asarray(image if detach is None else detach().cpu())
    if image.ndim == 0:
        raise ValueError(f"An image must be {_KINDS}; received {_described(image.item())}.")
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(f"An image array must have shape (height, width, 3); received shape {image.shape}.")
    check_pixels(image)
    return image


def _content(file: Any) -> bytes:
    content = file.read()
    if not isinstance(content, bytes):
        raise ValueError(
            f"The file of an image must return bytes; {file!r:.80} returns {type(content).__name__}. Open it with "
            "mode 'rb', or pass its path."
        )
    return content


def _described(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _warn_of_divided(images: Sequence[Any]) -> None:
    arrays = [image for image in images if isinstance(image, np.ndarray)]
    bright = [image for image in arrays if image.any()]
    if bright and all(is_divided(image) for image in bright):
        warnings.warn(
            "The values of these images are between 0 and 1: they seem to have been divided by 255, and look black to "
            "a network that takes 0 to 255. Multiply them by 255.",
            stacklevel=3,
        )


def _resized(image: Any, preprocessing: Preprocessing) -> np.ndarray:
    if isinstance(image, bytes):
        image = decode(image, "these bytes")
    if isinstance(image, str | os.PathLike):
        image = load_image(image)
    elif isinstance(image, Image.Image):
        image = to_rgb(image)
    elif image.dtype == np.uint8:
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        return np.asarray(resized_and_cropped(image, preprocessing), "float32")
    planes = [Image.fromarray(image[..., channel].astype("float32")) for channel in range(3)]
    return np.stack([np.asarray(resized_and_cropped(plane, preprocessing)) for plane in planes], axis=-1)
