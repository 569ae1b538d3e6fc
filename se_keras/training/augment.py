"""Augmentation transforms: small records that change an image with a given random generator.

They work on NumPy arrays with Pillow's resampling rather than on tensors. A run therefore sees the
same pixels on every backend, and a transform depends only on the seed, the epoch, and the image,
which lets a run resume exactly where it was stopped.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from se_keras.errors import check_count


class Transform(Protocol):
    """A transform of one image: uint8, 0 to 255, shape (height, width, channels)."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the changed image, uint8."""


class BatchTransform(Protocol):
    """A transform of a batch of images and their one-hot labels."""

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the changed images, 0 to 255, and labels of shape (n, classes), float32."""


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """A transform that flips half of the images horizontally."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the image or its mirror image."""
        return image[:, ::-1] if rng.random() < 0.5 else image


@dataclasses.dataclass(frozen=True)
class PadAndCrop:
    """A transform that adds a black border and crops to the original size (He et al., arXiv 1512.03385, section 4.2).

    Args:
        padding: Pixels on each side.
    """

    padding: int = 4

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns an image of the same size."""
        height, width, _ = image.shape
        p = self.padding
        top, left = rng.integers(0, 2 * p + 1, 2)
        padded = np.zeros((height + 2 * p, width + 2 * p, image.shape[2]), image.dtype)
        padded[p : p + height, p : p + width] = image
        return padded[top : top + height, left : left + width]


@dataclasses.dataclass(frozen=True)
class RandomAreaCrop:
    """A crop of random area and aspect ratio, resized (Szegedy et al., arXiv 1409.4842, section 6).

    Args:
        size: Height and width of the result in pixels. None uses the network's input size.
        least_area: Smallest fraction of the image's area.
        aspect: Greatest width over height; the smallest is its inverse.
    """

    size: tuple[int, int] | None = None
    least_area: float = 0.08
    aspect: float = 4 / 3

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns an image of shape (*size, channels), or of its original size if `size` is None."""
        height, width, _ = image.shape
        box = (0.0, 0.0, float(width), float(height))
        for _ in range(10):
            area = height * width * rng.uniform(self.least_area, 1)
            aspect = math.exp(rng.uniform(-math.log(self.aspect), math.log(self.aspect)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                left, top = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
                box = (float(left), float(top), float(left + w), float(top + h))
                break
        rows, columns = self.size or (height, width)
        resized = Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
        return np.asarray(resized)


@dataclasses.dataclass(frozen=True)
class RandomRotation:
    """A rotation by a random angle; corners become black.

    Args:
        degrees: Greatest angle in either direction, in degrees.
    """

    degrees: float = 10.0

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns an image of the same size."""
        angle = rng.uniform(-self.degrees, self.degrees)
        return np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))


@dataclasses.dataclass(frozen=True)
class PixelJitter:
    """A transform that adds one random number to each channel.

    Args:
        amount: Greatest change in either direction, out of 255.
    """

    amount: int = 20

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns an image of the same size."""
        shift = rng.integers(-self.amount, self.amount + 1, image.shape[2])
        return np.clip(image.astype(np.int16) + shift, 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Cutout:
    """A transform that blacks out a square, which may extend beyond the image (DeVries and Taylor, arXiv 1708.04552).

    Args:
        length: Height and width of the square in pixels.
    """

    length: int = 8

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns an image of the same size."""
        height, width, _ = image.shape
        y, x = rng.integers(0, height), rng.integers(0, width)
        half = self.length // 2
        image = image.copy()
        image[max(y - half, 0) : y - half + self.length, max(x - half, 0) : x - half + self.length] = 0
        return image


def _affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


RAND_AUGMENT_OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, s: image,
    "auto_contrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "rotate": lambda image, s: image.rotate(30 * s, Image.Resampling.BILINEAR),
    "solarize": lambda image, s: ImageOps.solarize(image, round(256 * (1 - abs(s)))),
    "color": lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
    "shear_x": lambda image, s: _affine(1, 0.3 * s, 0, 0, 1, 0)(image),
    "shear_y": lambda image, s: _affine(1, 0, 0, 0.3 * s, 1, 0)(image),
    "translate_x": lambda image, s: _affine(1, 0, 150 / 331 * image.width * s, 0, 1, 0)(image),
    "translate_y": lambda image, s: _affine(1, 0, 0, 0, 1, 150 / 331 * image.height * s)(image),
}
"""The 14 operations of RandAugment. Each takes an RGB image and a strength from -1 to 1; 0 changes nothing.

Only `auto_contrast` and `equalize` ignore the strength. The ranges are those of torchvision, in which every operation
gets stronger with the magnitude. Pixels from outside the image are black.
"""


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Random operations from `RAND_AUGMENT_OPERATIONS`, drawn with replacement (Cubuk et al., arXiv 1909.13719).

    Strengths are `magnitude / 10` of their range, in a random direction. This is the scale of the paper and of timm's
    `rand-mM-nN-inc1` (which skips each operation with a probability of one half). torchvision's scale goes to 30:
    its magnitude 9 is 3 here.

    Args:
        operations: Number of successive operations, at least 1.
        magnitude: Strength of the operations, from 0 to 10.

    Raises:
        ValueError: `operations` or `magnitude` is out of range.
    """

    operations: int = 2
    magnitude: float = 9.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations", check_count("operations", self.operations))
        if not 0 <= self.magnitude <= 10:
            raise ValueError(f"`magnitude` must be from 0 to 10; received {self.magnitude!r}.")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns an RGB image of the same size."""
        changed = Image.fromarray(image)
        table = tuple(RAND_AUGMENT_OPERATIONS.values())
        for number in rng.integers(0, len(table), self.operations):
            sign = 1 if rng.random() < 0.5 else -1
            changed = table[number](changed, sign * self.magnitude / 10)
        return np.asarray(changed)


@dataclasses.dataclass(frozen=True)
class Mixup:
    """A blend of each image with another (Zhang et al., arXiv 1710.09412).

    Args:
        alpha: Parameter of the beta distribution of the mixing fraction.
    """

    alpha: float = 0.2

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns images as float32, and labels blended in the same proportion."""
        share = np.float32(rng.beta(self.alpha, self.alpha))
        other = rng.permutation(len(images))
        blended = share * images.astype(np.float32) + (1 - share) * images[other]
        return blended, share * labels + (1 - share) * labels[other]


@dataclasses.dataclass(frozen=True)
class CutMix:
    """A transform that replaces a rectangle of each image with another image's (Yun et al., arXiv 1905.04899).

    Args:
        alpha: Parameter of the beta distribution of the mixing fraction.
    """

    alpha: float = 1.0

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns images of the same dtype, and labels in proportion to the pixels."""
        _, height, width, _ = images.shape
        cut = math.sqrt(1 - rng.beta(self.alpha, self.alpha))
        y, x = rng.integers(0, height), rng.integers(0, width)
        half_height, half_width = round(height * cut / 2), round(width * cut / 2)
        rows = slice(max(y - half_height, 0), min(y + half_height, height))
        columns = slice(max(x - half_width, 0), min(x + half_width, width))
        other = rng.permutation(len(images))
        mixed = images.copy()
        mixed[:, rows, columns] = images[other][:, rows, columns]
        share = np.float32(1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width))
        return mixed, share * labels + (1 - share) * labels[other]
