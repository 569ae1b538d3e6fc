"""Validation images for data that has no validation part, and checks of both parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def held_back(keys: Sequence[str], labels: np.ndarray, classes: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Splits images by a hash of their names, so that each stays in its part when others are added or removed.

    An image is held back if its hash is below `share` of all values, so the fraction of a class is only about `share`.
    There is one exception: a class of two or more images has an image in both parts. If all of its hashes are on one
    side, the image nearest to the other side changes its part; it may change back when images are added.

    Args:
        keys: Name of each image.
        labels: Integer label of each image, shape (n,).
        classes: Number of classes.
        share: Approximate fraction of each class to hold back, between 0 and 1.

    Returns:
        Positions of the training images and of those held back, each sorted by class, int64.

    Raises:
        ValueError: `share` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"`validation_split` must be between 0 and 1; received {share!r}.")
    kept: list[int] = []
    held: list[int] = []
    for label in range(classes):
        ranks = {index: _rank(keys[index]) for index in np.flatnonzero(labels == label).tolist()}
        own = sorted(ranks, key=lambda index: (ranks[index], keys[index]))
        count = sum(rank < share for rank in ranks.values())
        count = min(max(count, 1), len(own) - 1) if len(own) > 1 else 0  # each part has an image of the class
        held.extend(own[:count])
        kept.extend(own[count:])
    return np.array(kept, np.int64), np.array(held, np.int64)


def _rank(key: str) -> float:
    """Returns a number from 0 to 1 that depends on the name alone."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()  # file names may be any bytes
    return int.from_bytes(digest[:8], "big") / 2**64


def check_labels(labels: np.ndarray, class_names: Sequence[str], where: str) -> None:
    """Checks whether there are images, and whether each has a class.

    Args:
        labels: Integer label of each image, shape (n,).
        class_names: Name of each class.
        where: Name of the images for the error message.

    Raises:
        ValueError: A label is outside the classes, or there is no image.
    """
    if not len(labels):
        raise ValueError(f"There is no image for {where}; at least one is needed.")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(
            f"Labels for {where} must be from 0 to {len(class_names) - 1}, because there are {len(class_names)} "
            f"classes; received {labels.min()} to {labels.max()}."
        )


def check_classes(labels: np.ndarray, class_names: Sequence[str], where: str) -> None:
    """Checks whether each class has an image.

    Args:
        labels: Integer label of each image, shape (n,).
        class_names: Name of each class.
        where: Name of the images for the error message.

    Raises:
        ValueError: A class has no image.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    empty = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
    if empty:
        more = f" and {len(empty) - 10} more" if empty[10:] else ""
        raise ValueError(
            f"Each class needs a readable image; for {where}, these have none: {', '.join(empty[:10])}{more}."
        )
