"""Ranges of 8-bit tensors: the range of all values, and the range in which images lose least.

The range of all values spares none of them, but a few images, or a few channels, may reach far beyond all others, and
then the steps are too coarse for the rest. In MobileNetV3-Small, a typical image fills a tenth of such a range. The
range in which images lose least cuts off values where the steps of the others become so much finer that the mean error
of an image, relative to its own signal, falls.

Trained networks lose much less with the second, but some, above all untrained ones, lose more. The choice is
therefore measured: a network gets the second if its outputs are then close to those in float, and otherwise the one
with which they differ less.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from se_keras.spacing import evenly

SAMPLE = 160  # values per image and tensor
IN_CACHE = 2**18  # values whose maximum is found before they leave the cache where the minimum brought them
STEPS = 255
SMALLEST = 1e-30  # a tensor without larger values counts as always 0
SHARES = 2.0 ** -np.arange(0, 6, 1 / 3)  # of the range of all values
SLOPE_WIDTH = 1e-3
COMPARED = 64  # samples on which the outputs of two files are compared
CLOSE = 0.1  # error relative to the outputs: in trained networks, the second choice of ranges is seldom better

T = TypeVar("T")
Range = tuple[float, float]
Response = Callable[[np.ndarray], np.ndarray]
Search = Callable[[np.ndarray, float, float, Response], Range]


def identity(values: np.ndarray) -> np.ndarray:
    """Returns the values."""
    return values


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-x))."""
    return 0.5 + 0.5 * np.tanh(0.5 * values)


def swish(values: np.ndarray) -> np.ndarray:
    """Returns x * sigmoid(x)."""
    return values * sigmoid(values)


def hard_sigmoid(values: np.ndarray) -> np.ndarray:
    """Returns relu6(x + 3) / 6."""
    return np.clip(values / 6 + 0.5, 0, 1)


def hard_swish(values: np.ndarray) -> np.ndarray:
    """Returns x * hard_sigmoid(x)."""
    return values * hard_sigmoid(values)


def best_range(values: np.ndarray, low: float, high: float, response: Response = identity) -> Range:
    """Returns the range with the smallest mean error of an image relative to its own signal.

    Args:
        values: A sample of the values of each image, shape (images, n).
        low: The smallest value.
        high: The largest value.
        response: The function through which the tensor is read; the error is that of its result. Values that it
            does not distinguish need no steps: below -3, a hard swish is 0.

    Returns:
        The smallest and largest value of a range that contains 0.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    loss = _loss_of(values, response)
    both = min(SHARES, key=lambda share: loss(share * low, share * high))
    lower = upper = both
    for _ in range(2):
        lower = min(SHARES, key=lambda share: loss(share * low, upper * high))
        upper = min(SHARES, key=lambda share: loss(lower * low, share * high))
    return float(lower * low), float(upper * high)


def best_symmetric_range(values: np.ndarray, low: float, high: float, response: Response = identity) -> Range:
    """Returns the best range from -b to b, or that of `best_range` if no value is negative.

    Args:
        values: As in `best_range`.
        low: The smallest value.
        high: The largest value.
        response: As in `best_range`.

    Returns:
        The smallest and largest value.
    """
    if low >= 0:
        return best_range(values, low, high, response)
    loss, largest = _loss_of(values, response), max(-low, high)
    bound = float(largest * min(SHARES, key=lambda share: loss(-share * largest, share * largest)))
    return -bound, bound


class Observed:
    """The extremes and a sample of a tensor's values, image by image.

    Args:
        seed: Seed of the sample.
    """

    def __init__(self, seed: int) -> None:
        self.low, self.high = np.inf, -np.inf
        self._samples: list[np.ndarray] = []
        self._is_map = False
        self._rng = np.random.default_rng(seed)

    def add(self, values: np.ndarray, rows: int = 1) -> None:
        """Adds the values of one image, or of a batch of `rows` images, of any shape."""
        flat = values.reshape(-1)
        for start in range(0, flat.size, IN_CACHE):
            part = flat[start : start + IN_CACHE]
            self.low, self.high = np.minimum(self.low, part.min()), np.maximum(self.high, part.max())
        self._is_map = values.ndim > 2
        for image in values.reshape(rows if values.size % rows == 0 else 1, -1):
            self._samples.append(image[self._rng.integers(0, image.size, SAMPLE)].astype("float32"))

    @property
    def is_finite(self) -> bool:
        """Returns whether all values were finite."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def ranges(self, response: Response = identity, search: Search = best_range) -> tuple[Range, Range]:
        """Returns the range in which images lose least, and that of all values.

        Vectors keep the range of all values: a clipped feature is lost, whereas a map has many other values.

        Args:
            response: As in `best_range`.
            search: The function that finds the second range; it takes the arguments of `best_range`.

        Returns:
            Both ranges, each as its smallest and largest value.
        """
        of_all = self.range_of_all()
        if not self._is_map:
            return of_all, of_all
        return search(np.stack(self._samples), *of_all, response), of_all

    def range_of_all(self) -> Range:
        """Returns the extremes; from 0 to 1 if all values are 0, because runtimes abort on steps of 0."""
        low, high = float(self.low), float(self.high)
        return (low, high) if max(-low, high) > SMALLEST else (0.0, 1.0)


def compared(count: int, rows: int = 1) -> list[int]:
    """Chooses batches on which the outputs of two files are compared.

    Args:
        count: Number of batches, at least 1.
        rows: Number of samples per batch.

    Returns:
        The indices of batches with at least `COMPARED` samples, spread over all batches, or of all if there are fewer.
    """
    return evenly(count, -(-COMPARED // rows))


def closest(
    candidates: Sequence[T],
    outputs_of: Callable[[T], Sequence[np.ndarray]],
    expected: Callable[[], Sequence[np.ndarray]],
) -> T:
    """Returns the first candidate whose outputs are close, or else the one with the smallest error.

    The error of an output is the absolute one relative to what is expected, because a few samples dominate a squared
    one; that of several outputs is their mean. Outputs are close up to an error of `CLOSE`.

    Args:
        candidates: At least one, the most promising first: those after a close one are not tried.
        outputs_of: A function from a candidate to its outputs on some samples.
        expected: A function that returns the outputs in float on the same samples; called only for several candidates.

    Returns:
        The candidate; the first one in case of a tie.
    """
    if len(candidates) == 1:
        return candidates[0]
    right = [np.asarray(values, "float64") for values in expected()]

    def loss(candidate: T) -> float:
        errors = [
            np.abs(found - values).sum() / max(np.abs(values).sum(), np.finfo("float32").tiny)
            for found, values in zip(outputs_of(candidate), right, strict=True)
        ]
        return float(np.nan_to_num(np.mean(errors), nan=np.inf))

    losses: list[float] = []
    for candidate in candidates:
        losses.append(loss(candidate))
        if losses[-1] <= CLOSE:
            return candidate
    return candidates[int(np.argmin(losses))]


def _loss_of(values: np.ndarray, response: Response) -> Callable[[float, float], float]:
    """Returns a function from a range to the mean relative error in it."""
    signal = response(values)
    slope = (response(values + SLOPE_WIDTH) - response(values - SLOPE_WIDTH)) / (2 * SLOPE_WIDTH)
    energy = np.square(signal).sum(1)
    weights = np.divide(1.0, energy, out=np.zeros_like(energy), where=energy > 0)[:, None] / len(values)
    seen, squares = np.square(slope) * weights, np.square(values)

    @functools.cache
    def loss(low: float, high: float) -> float:
        cut = np.square(response(np.clip(values, low, high)) - signal) * weights
        rounded = np.minimum(squares, ((high - low) / STEPS) ** 2 / 12) * seen  # values below a step become 0
        return float(cut.sum() + rounded.sum())

    return loss
