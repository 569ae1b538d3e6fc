"""Images to train and test on."""

from __future__ import annotations

import dataclasses
import importlib.resources

import numpy as np


@dataclasses.dataclass(frozen=True)
class Sample:
    """A small labelled set of real images.

    Args:
        x_train: RGB images for training, uint8, 0 to 255, shape (n, height, width, 3).
        y_train: Their class indices, uint8, shape (n,).
        x_test: Images for testing, as `x_train`.
        y_test: Their class indices.
        class_names: Name of each class, in the order of the indices.
        source: Where the images are from.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    source: str


def load_sample() -> Sample:
    """The real images that come with the package: 100 training and 50 test images of each class of CIFAR-10.

    Returns:
        A `Sample` of 1,000 and 500 images of 32x32 pixels, lossless.

    Example:

    >>> load_sample().x_train.shape
    (1000, 32, 32, 3)
    """
    file = importlib.resources.files("se_keras").joinpath("data/cifar10_sample.npz")
    with file.open("rb") as stream, np.load(stream) as arrays:
        return Sample(
            x_train=arrays["x_train"],
            y_train=arrays["y_train"],
            x_test=arrays["x_test"],
            y_test=arrays["y_test"],
            class_names=tuple(map(str, arrays["class_names"])),
            source=str(arrays["source"]),
        )
