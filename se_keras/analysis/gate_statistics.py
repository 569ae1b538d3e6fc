"""Running statistics of gates by class, in memory that does not grow with the number of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from se_keras.analysis.results import BlockGates, Gates
from se_keras.surgery.forward import Moments
from se_keras.surgery.probe import Probe

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SATURATED = 0.01  # share of a gate's range, at either end
LARGEST_HISTOGRAMS = 1 << 30  # bytes
ALL = {0: "all"}


class GateStatistics:
    """Running statistics of a network's gates. Each array concatenates the gates of all blocks.

    Args:
        probe: The network.
        bins: Bins of each histogram; 0: no histograms.
        samples: Number of images whose individual gates are kept.
        names: Names of the classes that may occur, by label. None: any label may occur.

    Raises:
        ValueError: The histograms would take more than 1 GiB.
    """

    def __init__(self, probe: Probe, bins: int, samples: int, names: Mapping[int, str] | None) -> None:
        self._probe, self._bins, self._names = probe, bins, names
        self._widths = [gate.shape[-1] for gate in probe.gates]
        width = sum(self._widths)
        self._limits: list[tuple[float, float]] = []
        self._lows, self._highs = np.zeros(width), np.ones(width)
        self._classes: dict[int, _Class] = {}
        self._together = Moments(width)
        self._samples = _Reservoir(samples, width)
        if names is not None:
            self._check_memory(len(names))

    def add(self, outputs: Sequence[np.ndarray], labels: np.ndarray | None) -> None:
        """Adds a batch.

        Args:
            outputs: The gates of each block, (batch, channels).
            labels: Integer labels, (batch,). None: all images belong to one class.

        Raises:
            ValueError: A class has no name, there are names but no labels, or the histograms exceed 1 GiB.
        """
        self._widen(outputs)
        if labels is None:
            if self._names not in (None, ALL):
                raise ValueError("`class_names` requires labels; received no labels. Pass `labels`.")
            self._names, labels = ALL, np.zeros(len(outputs[0]), "int64")
        values: np.ndarray = np.concatenate([x.astype("float64") for x in outputs], axis=1)
        self._samples.add(values, labels)
        self._together.add(values)
        places = (values - self._lows) / (self._highs - self._lows)
        for label in np.unique(labels):
            rows = labels == label
            self._class(int(label)).add(values[rows], places[rows])

    def _widen(self, outputs: Sequence[np.ndarray]) -> None:
        """Sets the range of each block's gates: of their activation if known, else at least that of all batches."""
        limits = [
            one.limits or _wider(self._limits[block] if self._limits else (0.0, 0.0), outputs[block])
            for block, one in enumerate(self._probe.excitations)
        ]
        if limits == self._limits:
            return
        ends = np.repeat(np.array(limits), self._widths, axis=0)
        for one in self._classes.values():
            one.rebin((self._lows, self._highs), (ends[:, 0], ends[:, 1]))
        self._limits, self._lows, self._highs = limits, ends[:, 0], ends[:, 1]

    def _class(self, label: int) -> _Class:
        if label not in self._classes:
            if self._names is not None and label not in self._names:
                raise ValueError(
                    f"Every label must have a name in `class_names`; received label {label}, and names for "
                    f"{', '.join(map(str, self._names))}."
                )
            self._check_memory(len(self._classes) + 1)
            have_ends = [one.limits is not None for one in self._probe.excitations]
            self._classes[label] = _Class(self._bins, np.repeat(have_ends, self._widths))
        return self._classes[label]

    def _check_memory(self, classes: int) -> None:
        width = sum(self._widths)
        size = 4 * classes * width * self._bins
        if size > LARGEST_HISTOGRAMS:
            fitting = LARGEST_HISTOGRAMS // (4 * classes * width)
            raise ValueError(
                f"Histograms must fit into 1 GiB; {classes} classes of {width} gates in bins={self._bins} take "
                f"{size / 2**30:.1f} GiB. Pass bins={fitting} or less; bins=0 omits quantiles."
            )

    def result(self, network: str, title: str) -> Gates:
        """Returns the statistics of all batches.

        Args:
            network: Name of the model.
            title: Description of the images.

        Returns:
            A `Gates`.

        Raises:
            ValueError: A named class has no images.
        """
        names = self._names or {label: str(label) for label in sorted(self._classes)}
        empty = [name for label, name in names.items() if label not in self._classes]
        if empty:
            raise ValueError(
                f"Every class must have images; received none for {', '.join(empty[:5])}"
                f"{f' and {len(empty) - 5} more' if empty[5:] else ''}. Omit them from `class_names` (a mapping from "
                "labels to names may name only some), or add images."
            )
        classes = [self._classes[label] for label in names]
        counts = np.array([one.moments.count for one in classes])
        indices, labels, samples = self._samples.kept()
        rows = {label: row for row, label in enumerate(names)}
        numbers = {**self._numbers(classes, counts), "samples": samples}
        arrays = {name: np.split(array, np.cumsum(self._widths)[:-1], axis=-1) for name, array in numbers.items()}
        return Gates(
            network=network,
            title=title,
            class_names=tuple(names.values()),
            counts=counts,
            levels=QUANTILES if self._bins else (),
            bins=self._bins,
            blocks=tuple(
                BlockGates(name=name, limits=self._limits[i], **{key: parts[i] for key, parts in arrays.items()})
                for i, name in enumerate(self._probe.names)
            ),
            sample_indices=indices,
            sample_labels=np.array([rows[label] for label in labels], "int64"),
        )

    def _numbers(self, classes: Sequence[_Class], counts: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the arrays of `BlockGates` except the samples."""
        weights = counts / counts.sum()
        means = np.stack([one.moments.mean for one in classes])
        low = np.stack([one.low for one in classes]) / counts[:, None]
        high = np.stack([one.high for one in classes]) / counts[:, None]
        deviations = self._together.std
        between = np.sqrt(weights @ np.square(means - self._together.mean))
        return {
            "mean": means,
            "std": np.stack([one.moments.std for one in classes]),
            "low_share": low,
            "high_share": high,
            "quantiles": np.stack([self._quantiles([one]) for one in classes]),
            "total_mean": self._together.mean,
            "total_std": deviations,
            "total_low_share": weights @ low,
            "total_high_share": weights @ high,
            "total_quantiles": self._quantiles(classes),
            "between_std": np.where(deviations > 0, between, 0.0),
        }

    def _quantiles(self, classes: Sequence[_Class]) -> np.ndarray:
        """Returns quantiles of each gate over the images of some classes, interpolated in the bins: (levels, width)."""
        bins = self._bins
        if not bins:
            return np.zeros((0, len(self._lows)))
        histogram = np.sum([one.histogram.reshape(-1, bins) for one in classes], axis=0, dtype="int64")
        reached = histogram.cumsum(1)
        found = []
        for level in QUANTILES:
            target = level * reached[:, -1:]
            cell = (reached < target).sum(1, keepdims=True)  # the first bin that reaches it
            inside = np.take_along_axis(histogram, cell, 1)
            share = (target - (np.take_along_axis(reached, cell, 1) - inside)) / inside
            found.append(self._lows + (cell + share)[:, 0] / bins * (self._highs - self._lows))
        least = np.min([one.least for one in classes], axis=0)
        greatest = np.max([one.greatest for one in classes], axis=0)
        return np.clip(found, least, greatest)


class _Class:
    """Running statistics of one class.

    Args:
        bins: Bins of each histogram.
        have_ends: Whether each gate has a lowest and a highest possible value, (width,).
    """

    def __init__(self, bins: int, have_ends: np.ndarray) -> None:
        self.bins, self._have_ends, width = bins, have_ends, len(have_ends)
        self.moments = Moments(width)
        self.low: np.ndarray = np.zeros(width, "int64")
        self.high: np.ndarray = np.zeros(width, "int64")
        self.least, self.greatest = np.full(width, np.inf), np.full(width, -np.inf)
        self.histogram: np.ndarray = np.zeros(width * bins, "uint32")

    def add(self, values: np.ndarray, places: np.ndarray) -> None:
        """Adds gates and their positions in their range, from 0 to 1: both (images, width)."""
        self.moments.add(values)
        self.low += np.where(self._have_ends, places < SATURATED, values == 0).sum(0)
        self.high += (self._have_ends & (places > 1 - SATURATED)).sum(0)
        self.least = np.minimum(self.least, values.min(0))
        self.greatest = np.maximum(self.greatest, values.max(0))
        if self.bins:
            cells = np.clip((places * self.bins).astype("int64"), 0, self.bins - 1)
            cells += np.arange(values.shape[1]) * self.bins
            np.add.at(self.histogram, cells.ravel(), np.uint32(1))

    def rebin(self, old: tuple[np.ndarray, np.ndarray], new: tuple[np.ndarray, np.ndarray]) -> None:
        """Moves what was counted to the bins of other ranges: lows and highs, (width,) each."""
        if not self.bins:
            return
        (old_low, old_high), (new_low, new_high) = ([end[:, None] for end in ends] for ends in (old, new))
        centers = old_low + (np.arange(self.bins) + 0.5) / self.bins * (old_high - old_low)
        cells = ((centers - new_low) / (new_high - new_low) * self.bins).astype("int64")
        cells = np.clip(cells, 0, self.bins - 1) + np.arange(len(old_low))[:, None] * self.bins
        moved = np.zeros_like(self.histogram)
        np.add.at(moved, cells.ravel(), self.histogram)
        self.histogram = moved


class _Reservoir:
    """A uniform, reproducible random sample of rows from a stream (algorithm R)."""

    def __init__(self, size: int, width: int) -> None:
        self._rows: np.ndarray = np.zeros((size, width), "float32")
        self._indices: np.ndarray = np.full(size, -1)
        self._labels: np.ndarray = np.full(size, -1)
        self._seen = 0
        self._random = np.random.default_rng(0)

    def add(self, rows: np.ndarray, labels: np.ndarray) -> None:
        size, start = len(self._rows), self._seen
        self._seen += len(rows)
        if not size:
            return
        numbers = np.arange(start, start + len(rows))
        slots = np.where(numbers < size, numbers, self._random.integers(0, numbers + 1))
        for row in np.flatnonzero(slots < size):
            slot = slots[row]
            self._rows[slot], self._indices[slot], self._labels[slot] = rows[row], start + row, labels[row]

    def kept(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns position in the stream, label, and row of each, in the order of the stream."""
        order = np.argsort(self._indices)
        order = order[self._indices[order] >= 0]  # the stream may have fewer than `size`
        return self._indices[order], self._labels[order], self._rows[order]


def _wider(limits: tuple[float, float], values: np.ndarray) -> tuple[float, float]:
    """Returns a range that also contains these values; where it must grow, it reaches twice as far as they do."""
    low, high = limits
    least, greatest = float(values.min()), float(values.max())
    low = low if least >= low else 2.0 * least
    high = high if greatest <= high else 2.0 * greatest
    return (low, high) if high > low else (0.0, 1.0)
