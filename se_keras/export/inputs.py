"""The inputs of a model or file: their names, shapes, and dtypes, and the values that they take.

Nothing here imports Keras: the runtimes also run in processes that measure time and memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from se_keras.spacing import evenly

IMAGE, TOKENS, VALUES = "image", "tokens", "values"
OPEN_SIZE = 128  # for dimensions of any size: above the minimum of every network
PIXELS = (0.0, 255.0)
UNSTATED = {IMAGE: (0.0, 1.0), VALUES: (-1.0, 1.0), TOKENS: (0.0, 1.0)}
"""Ranges of random values for a model that does not state its own, because it expects normalized values."""

Feed = Mapping[str, np.ndarray]
"""The value of each input by its name, in the order of the inputs, with one row per sample."""


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of a model or file.

    Args:
        name: Its name in exports.
        shape: Its shape without the batch; None for dimensions of any size.
        dtype: Its dtype; "string" for text.
        kind: "image" for maps of shape (height, width, channels), "tokens" for indices into the rows of an embedding,
            and "values" for anything else.
        low: The smallest value that it takes, if the model states that.
        high: The largest, likewise.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    kind: str = VALUES
    low: float | None = None
    high: float | None = None

    @property
    def is_whole(self) -> bool:
        """Returns whether its values are integers."""
        return self.kind == TOKENS or np.dtype(self.dtype).kind in "iub"

    @property
    def drawn(self) -> tuple[float, float]:
        """Returns the range of its random values."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        return (0.0, 1.0) if self.is_whole else UNSTATED[self.kind]

    def facts(self) -> dict[str, Any]:
        """Returns name, shape, dtype, and range, for a description in JSON."""
        ends = [end for end in (self.low, self.high) if end is not None]
        known = {"range": [int(end) if end == int(end) else end for end in ends]} if len(ends) == 2 else {}
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype, "kind": self.kind, **known}


def input_of_file(name: str, shape: Sequence[int | None], dtype: str) -> Input:
    """Returns the record of an input about which a file states only its name, shape, and dtype.

    Args:
        name: Its name.
        shape: Its shape without the batch.
        dtype: Its dtype.

    Returns:
        The record. Maps of three axes are images from 0 to 255, as the networks of this package take them.
    """
    if len(shape) == 3 and dtype != "string":
        return Input(name, tuple(shape), dtype, IMAGE, 0.0, 255.0)
    return Input(name, tuple(shape), dtype)


def takes_text(inputs: Sequence[Input]) -> bool:
    """Returns whether any input is text, for which no values can be drawn."""
    return any(one.dtype == "string" for one in inputs)


def random_feed(inputs: Sequence[Input], count: int, *, size: int = OPEN_SIZE) -> dict[str, np.ndarray]:
    """Draws random values for every input, the same in every call.

    Args:
        inputs: The inputs, none of which is text.
        count: Number of samples, at least 1.
        size: The size of dimensions of any size.

    Returns:
        The values by name: whole numbers for tokens and integer inputs, else float32.
    """
    return {one.name: _drawn(one, count, size, seed) for seed, one in enumerate(inputs)}


def _drawn(one: Input, count: int, size: int, seed: int) -> np.ndarray:
    shape = [size if length is None else length for length in one.shape]
    low, high = one.drawn
    if one.kind == IMAGE:
        values = random_images(shape, count, low=low, high=high, seed=seed)
        return values.astype(one.dtype) if one.is_whole else values
    rng = np.random.default_rng(seed)
    if one.is_whole:
        return rng.integers(int(low), int(high) + 1, (count, *shape)).astype(one.dtype)
    return rng.uniform(low, high, (count, *shape)).astype("float32")


def random_images(
    shape: Sequence[int], count: int, *, low: float = 0.0, high: float = 255.0, seed: int = 0
) -> np.ndarray:
    """Generates noise images: half with independent pixels, half with large patches, since photos have both.

    Args:
        shape: Height, width, and channels.
        count: Number of images, at least 1.
        low: The smallest value.
        high: The largest value.
        seed: Seed of the noise.

    Returns:
        Float32 array of shape (count, height, width, channels), the same in every call.
    """
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    coarse = rng.uniform(low, high, (count, -(-height // 8), -(-width // 8), channels))
    patches = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    noise = rng.uniform(low, high, (count, height, width, channels))
    mixed = np.where((np.arange(count) % 2 == 0)[:, None, None, None], noise, patches)
    return mixed.astype("float32")


def described_draw(inputs: Sequence[Input]) -> str:
    """Describes what `random_feed` draws, such as "'tokens' integers from 0 to 999"."""
    return "; ".join(
        f"{one.name!r} {'integers ' if one.is_whole else ''}from {one.drawn[0]:g} to {one.drawn[1]:g}" for one in inputs
    )


def rows_of(feed: Feed) -> int:
    """Returns the number of samples."""
    return len(next(iter(feed.values())))


def part_of(feed: Feed, start: int, stop: int | None = None) -> dict[str, np.ndarray]:
    """Returns the samples from `start` up to, but not including, `stop`."""
    return {name: values[start:stop] for name, values in feed.items()}


def rows_at(feed: Feed, places: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns the samples at these indices of each input."""
    return {name: values[list(places)] for name, values in feed.items()}


def few_of(feed: Feed, most: int) -> dict[str, np.ndarray]:
    """Returns at most `most` samples, evenly spaced because data is often sorted by class."""
    return rows_at(feed, evenly(rows_of(feed), most))


def filled(feed: Feed, rows: int) -> dict[str, np.ndarray]:
    """Returns the samples, with the last repeated until there are `rows`."""
    missing = rows - rows_of(feed)
    if not missing:
        return dict(feed)
    return {name: np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]) for name, values in feed.items()}


def in_order(inputs: Sequence[Input], feed: Feed) -> list[np.ndarray]:
    """Returns the values in the order of the inputs. A single input takes the only value, whatever its name.

    Args:
        inputs: The inputs.
        feed: The values by name.

    Returns:
        One array per input.

    Raises:
        ValueError: The names are not those of the inputs.
    """
    if len(inputs) == len(feed) == 1:
        return list(feed.values())
    names = [one.name for one in inputs]
    if set(names) != set(feed):
        raise ValueError(f"The inputs must be {', '.join(map(repr, names))}; received {', '.join(map(repr, feed))}.")
    return [feed[name] for name in names]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Inputs to run a model on.

    Args:
        name: "random" or "real".
        feed: The inputs, in the scale of the model.
        labels: Integer label of each sample, shape (n,), or None if unknown.
        folders: Names of the subfolders that the labels come from, in sorted order; () if from none.
        broken: Files that could not be read and were skipped, with reasons.
        unit: What they are, for a report: "images" or "samples".
    """

    name: str
    feed: Feed
    labels: np.ndarray | None = None
    folders: tuple[str, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    unit: str = "images"

    @property
    def images(self) -> np.ndarray:
        """Returns the values of the only input."""
        (values,) = self.feed.values()
        return values

    def few(self, most: int) -> Samples:
        """Returns at most `most` of the samples, as `few_of` does, and their labels."""
        labels = None if self.labels is None else self.labels[evenly(len(self.labels), most)]
        return dataclasses.replace(self, feed=few_of(self.feed, most), labels=labels)
