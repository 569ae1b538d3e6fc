"""The gates of every SE block over a dataset: how high they are, how much they vary, and with what."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from se_keras.errors import check_count
from se_keras.files import replacing
from se_keras.surgery.graph import build_model, read_graph
from se_keras.surgery.probe import Moments, Probe, Progress, forward, probe_gates

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SATURATED = 0.01  # share of a gate's range, at either end
LARGEST_HISTOGRAMS = 1 << 30  # bytes
FORMAT = "se_keras gates 1"
ALL = {0: "all"}

ARRAYS = (
    "mean",
    "std",
    "low_share",
    "high_share",
    "quantiles",
    "total_mean",
    "total_std",
    "total_low_share",
    "total_high_share",
    "total_quantiles",
    "between_std",
    "samples",
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BlockGates:
    """The gates of one SE block. `total_` means over all images, whatever their class.

    Args:
        name: Name of the block.
        limits: Lowest and highest gate possible: (0, 1) for a sigmoid, (0, 2) with
            `gate_init="identity"`; for gates without an upper end, the range of the histogram.
        mean: Mean gate, shape (classes, channels).
        std: Standard deviation within a class, (classes, channels).
        low_share: Share of the images whose gate is in the lowest hundredth of the range (below
            0.01 for a sigmoid), (classes, channels), 0 to 1.
        high_share: The same for the highest hundredth (above 0.99).
        quantiles: Shape (classes, levels, channels), from histograms: true to one bin's width.
            No levels if none were asked for.
        total_mean: Shape (channels,).
        total_std: Shape (channels,).
        total_low_share: Shape (channels,).
        total_high_share: Shape (channels,).
        total_quantiles: Shape (levels, channels).
        between_std: Standard deviation of the class means, weighted by the images of each class, (channels,).
        samples: Gates of single images, (samples, channels).
    """

    name: str
    limits: tuple[float, float]
    mean: np.ndarray
    std: np.ndarray
    low_share: np.ndarray
    high_share: np.ndarray
    quantiles: np.ndarray
    total_mean: np.ndarray
    total_std: np.ndarray
    total_low_share: np.ndarray
    total_high_share: np.ndarray
    total_quantiles: np.ndarray
    between_std: np.ndarray
    samples: np.ndarray

    @property
    def channels(self) -> int:
        """Number of gates."""
        return len(self.total_mean)

    @property
    def class_share(self) -> np.ndarray:
        """Variance over classes as a share of the variance over all images.

        Returns:
            Shape (channels,). 0: the gate does not tell classes apart, or never changes; 1: it
            depends on the class alone. By chance alone it is (classes - 1) / (images - 1).
        """
        total = np.square(self.total_std)
        return np.divide(np.square(self.between_std), total, out=np.zeros_like(total), where=total > 0)

    @property
    def class_specificity(self) -> float:
        """The share of `class_share` for the whole block: variances summed over channels first."""
        total = float(np.square(self.total_std).sum())
        return float(np.square(self.between_std).sum()) / total if total > 0 else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Gates:
    """What `collect_gates` returns.

    Args:
        network: Name of the model.
        data: What the images are, for titles.
        class_names: Names of the classes, in the order of the arrays' rows; ("all",) without labels.
        counts: Number of images of each class, (classes,).
        levels: Levels of the quantiles, each between 0 and 1.
        bins: Bins of the histograms behind the quantiles: their resolution is the range / `bins`.
        blocks: One entry an SE block, in the order of the network.
        sample_indices: Positions in the dataset of the images in `samples`, (samples,).
        sample_labels: Rows in `class_names` of these images, (samples,).
    """

    network: str
    data: str
    class_names: tuple[str, ...]
    counts: np.ndarray
    levels: tuple[float, ...]
    bins: int
    blocks: tuple[BlockGates, ...]
    sample_indices: np.ndarray
    sample_labels: np.ndarray

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.counts.sum())

    def block(self, name: str) -> BlockGates:
        """One block by its name.

        Args:
            name: E.g. "stage2_block1_se".

        Returns:
            Its gates.

        Raises:
            ValueError: There is none of that name; the message lists all.
        """
        for block in self.blocks:
            if block.name == name:
                return block
        raise ValueError(f"No SE block is called {name!r}. Options: {', '.join(b.name for b in self.blocks)}.")

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Writes everything into one compressed file, which `Gates.load` reads.

        Args:
            path: Ending in .npz; the file appears when it is whole.
            overwrite: Whether a file there may be replaced.

        Raises:
            FileExistsError: There is a file already, and `overwrite` is False.
            ValueError: Another ending.
        """
        if not os.fspath(path).endswith(".npz"):
            raise ValueError(f"`path` must end in .npz; received {os.fspath(path)!r}.")
        about = {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("network", "data", "class_names", "levels", "bins")},
            "blocks": [{"name": block.name, "limits": block.limits} for block in self.blocks],
        }
        arrays = {f"{i}/{name}": getattr(block, name) for i, block in enumerate(self.blocks) for name in ARRAYS}
        arrays |= {name: getattr(self, name) for name in ("counts", "sample_indices", "sample_labels")}
        with replacing(path, overwrite=overwrite) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, about=json.dumps(about), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Gates:
        """Reads what `save` wrote.

        Args:
            path: The file.

        Returns:
            The same gates.

        Raises:
            FileNotFoundError: There is none.
            ValueError: It holds something else.
        """
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"])) if "about" in arrays else {}
            if about.get("format") != FORMAT:
                raise ValueError(f"{os.fspath(path)!r} was not written by `Gates.save` of this version.")
            blocks = [
                BlockGates(
                    name=block["name"],
                    limits=tuple(block["limits"]),
                    **{name: arrays[f"{i}/{name}"] for name in ARRAYS},
                )
                for i, block in enumerate(about["blocks"])
            ]
            return cls(
                network=about["network"],
                data=about["data"],
                class_names=tuple(about["class_names"]),
                counts=arrays["counts"],
                levels=tuple(about["levels"]),
                bins=about["bins"],
                blocks=tuple(blocks),
                sample_indices=arrays["sample_indices"],
                sample_labels=arrays["sample_labels"],
            )


def collect_gates(
    model: keras.Model,
    images: Any,
    labels: Any = None,
    *,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    data: str = "images",
    batch_size: int = 32,
    bins: int = 100,
    samples: int = 0,
    progress: Progress = iter,
) -> Gates:
    """Observes the gates of every SE block over a dataset, in one forward pass and constant memory.

    Reference: Hu et al., arXiv 1709.01507v4, section 7.2 and figure 7. It shows mean gates of four classes;
    standard deviations, quantiles, saturation and the share of the classes in the variance are
    added here.

    Args:
        model: A functional model with `SqueezeExcite` layers, also in models inside it, and its
            preprocessing. It is not changed.
        images: In the scale of the model's input: an array of shape (n, height, width, channels),
            a dictionary of arrays for several inputs, a `keras.utils.PyDataset`, a
            `tf.data.Dataset`, or any finite iterable of batches x or (x, labels).
        labels: Class indices, shape (n,), or one-hot rows, (n, classes), where `images` brings none.
            None: all images are one class.
        class_names: Names in the order of the indices, or a mapping from the indices that occur to names.
            Each must have images. Default: the indices that occur.
        data: What the images are, e.g. "CIFAR-10 test", for the titles of figures.
        batch_size: Images at a time, where `images` is an array; at least 1.
        bins: Bins over the gate's range, at least 1, from which quantiles are read; they take
            4 bytes for each bin, class and channel. 0: no quantiles.
        samples: Number of images, drawn at random but the same each time, whose gates are kept as they are.
        progress: Wraps the iteration over batches, e.g. to show a bar.

    Returns:
        A `Gates`.

    Raises:
        ValueError: A subclassed model or one without SE blocks; no images; labels of another length or that
            are no classes; a class without images or without a name; histograms of more than 1 GiB.

    Example:

    >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3))
    >>> gates = collect_gates(SEResNet20(), images, [0, 1] * 4, class_names=["cat", "dog"])
    >>> gates.block("stage2_block1_se").mean.shape
    (2, 16)
    """
    for name, count in (("bins", bins), ("samples", samples)):
        if count != 0:
            check_count(name, count)
    names = _named(class_names)
    probe = probe_gates(read_graph(model))
    observer = build_model(dataclasses.replace(probe.graph, outputs=list(probe.gates)))
    collection = _Collection(probe, bins, samples, names)
    for _, outputs, classes in forward(observer, images, labels, batch_size=batch_size, progress=progress):
        collection.add(outputs, classes)
    return _gates(model.name, data, probe, collection)


class ImageGates(NamedTuple):
    """One block's view of one image: its gates, (channels,), and its input map, (..., channels)."""

    gates: np.ndarray
    maps: np.ndarray


def image_gates(model: keras.Model, image: np.ndarray) -> dict[str, ImageGates]:
    """The gates of every SE block for one image, and the feature maps that they weigh.

    Args:
        model: As in `collect_gates`.
        image: One image in the scale of the model's input, without a batch axis.

    Returns:
        From the name of each block to its gates and the map they weigh, channels last.

    Raises:
        ValueError: As in `collect_gates`.
    """
    probe = probe_gates(read_graph(model))
    sources = [call.inputs[0] for call in probe.calls]
    observer = build_model(dataclasses.replace(probe.graph, outputs=[*probe.gates, *sources]))
    ((_, outputs, _),) = forward(observer, np.asarray(image)[None])
    values: list[np.ndarray] = [x[0].astype("float32") for x in outputs]
    count = len(probe.names)
    found = {}
    for name, call, gates, maps in zip(probe.names, probe.calls, values[:count], values[count:], strict=True):
        is_first = call.operation.data_format == "channels_first"
        found[name] = ImageGates(gates, np.moveaxis(maps, 0, -1) if is_first else maps)
    return found


def _named(class_names: Sequence[str] | Mapping[int, str] | None) -> dict[int, str] | None:
    if class_names is None:
        return None
    pairs = class_names.items() if isinstance(class_names, Mapping) else enumerate(class_names)
    return {int(index): str(name) for index, name in pairs}


def _limits(probe: Probe, first: Sequence[np.ndarray]) -> list[tuple[float, float]]:
    """The range of each block's gates: known for a sigmoid or tanh, else twice what the first batch shows."""
    limits = []
    for call, values in zip(probe.calls, first, strict=True):
        block = call.operation
        if block.gate_activation in (keras.activations.sigmoid, keras.activations.hard_sigmoid):
            limits.append((0.0, float(block.gate_scale)))
        elif block.gate_activation is keras.activations.tanh:
            limits.append((-1.0, 1.0))
        else:
            low, high = min(0.0, 2.0 * float(values.min())), max(0.0, 2.0 * float(values.max()))
            limits.append((low, high if high > low else low + 1.0))
    return limits


class _Class:
    """Running numbers of the gates of one class, all blocks side by side."""

    def __init__(self, width: int, bins: int) -> None:
        self.moments = Moments(width)
        self.low: np.ndarray = np.zeros(width, "int64")
        self.high: np.ndarray = np.zeros(width, "int64")
        self.least, self.greatest = np.full(width, np.inf), np.full(width, -np.inf)
        self.histogram: np.ndarray = np.zeros(width * bins, "uint32")


class _Collection:
    """All classes, the images together, and a reservoir of samples."""

    def __init__(self, probe: Probe, bins: int, samples: int, names: Mapping[int, str] | None) -> None:
        width = sum(gate.shape[-1] for gate in probe.gates)
        self.probe, self.bins, self.names = probe, bins, names
        self.limits: list[tuple[float, float]] = []
        self.lows, self.highs = np.zeros(width), np.ones(width)
        self.classes: dict[int, _Class] = {}
        self.together = Moments(width)
        self.samples: np.ndarray = np.zeros((samples, width), "float32")
        self.sample_indices: np.ndarray = np.full(samples, -1)
        self.sample_labels: np.ndarray = np.full(samples, -1)
        self._random = np.random.default_rng(0)
        if names is not None:
            self._check_memory(len(names))

    def add(self, outputs: Sequence[np.ndarray], labels: np.ndarray | None) -> None:
        """Takes in a batch: the gates of each block, (batch, channels), and class indices, (batch,)."""
        if not self.limits:
            self.limits = _limits(self.probe, outputs)
            ends = np.repeat(np.array(self.limits), [x.shape[1] for x in outputs], axis=0)
            self.lows, self.highs = ends[:, 0], ends[:, 1]
        if labels is None:
            if self.names not in (None, ALL):
                raise ValueError("`class_names` names the classes of labels; received no labels.")
            self.names, labels = ALL, np.zeros(len(outputs[0]), "int64")
        exact: np.ndarray = np.concatenate([x.astype("float64") for x in outputs], axis=1)
        self._sample(exact, labels)
        self.together.add(exact)
        place = (exact - self.lows) / (self.highs - self.lows)
        if self.bins:
            cells = np.clip((place * self.bins).astype("int64"), 0, self.bins - 1)
            cells += np.arange(exact.shape[1]) * self.bins
        for label in np.unique(labels):
            one, rows = self._class(int(label)), labels == label
            one.moments.add(exact[rows])
            one.low += (place[rows] < SATURATED).sum(0)
            one.high += (place[rows] > 1 - SATURATED).sum(0)
            one.least = np.minimum(one.least, exact[rows].min(0))
            one.greatest = np.maximum(one.greatest, exact[rows].max(0))
            if self.bins:
                np.add.at(one.histogram, cells[rows].ravel(), np.uint32(1))

    def _class(self, label: int) -> _Class:
        if label not in self.classes:
            if self.names is not None and label not in self.names:
                raise ValueError(
                    f"Every label must have a name in `class_names`; received label {label}, and names for "
                    f"{', '.join(map(str, self.names))}."
                )
            self._check_memory(len(self.classes) + 1)
            self.classes[label] = _Class(len(self.lows), self.bins)
        return self.classes[label]

    def _check_memory(self, classes: int) -> None:
        size = 4 * classes * len(self.lows) * self.bins
        if size > LARGEST_HISTOGRAMS:
            fitting = LARGEST_HISTOGRAMS // (4 * classes * len(self.lows))
            raise ValueError(
                f"Histograms must fit into 1 GiB; {classes} classes of {len(self.lows)} gates in bins={self.bins} take "
                f"{size / 2**30:.1f} GiB. Give bins={fitting} or less; bins=0 leaves quantiles out."
            )

    def _sample(self, values: np.ndarray, labels: np.ndarray) -> None:
        """Algorithm R: every image has the same chance to stay."""
        size, start = len(self.samples), self.together.count
        if not size:
            return
        numbers = np.arange(start, start + len(values))
        slots = np.where(numbers < size, numbers, self._random.integers(0, numbers + 1))
        for row in np.flatnonzero(slots < size):
            slot = slots[row]
            self.samples[slot], self.sample_indices[slot], self.sample_labels[slot] = (
                values[row],
                start + row,
                labels[row],
            )


def _gates(network: str, data: str, probe: Probe, collection: _Collection) -> Gates:
    names = collection.names or {label: str(label) for label in sorted(collection.classes)}
    empty = [name for label, name in names.items() if label not in collection.classes]
    if empty:
        raise ValueError(
            f"Every class must have images; received none of {', '.join(empty[:5])}"
            f"{f' and {len(empty) - 5} more' if empty[5:] else ''}. Leave them out of `class_names` (a mapping from "
            "label to name names only some), or add images."
        )
    classes = [collection.classes[label] for label in names]
    counts = np.array([one.moments.count for one in classes])
    kept = np.argsort(collection.sample_indices)
    kept = kept[collection.sample_indices[kept] >= 0]  # fewer images than samples
    rows = {label: row for row, label in enumerate(names)}
    widths = [gate.shape[-1] for gate in probe.gates]
    numbers = {**_numbers(collection, classes, counts), "samples": collection.samples[kept]}
    arrays = {name: np.split(array, np.cumsum(widths)[:-1], axis=-1) for name, array in numbers.items()}
    return Gates(
        network=network,
        data=data,
        class_names=tuple(names.values()),
        counts=counts,
        levels=QUANTILES if collection.bins else (),
        bins=collection.bins,
        blocks=tuple(
            BlockGates(name=name, limits=collection.limits[i], **{key: parts[i] for key, parts in arrays.items()})
            for i, name in enumerate(probe.names)
        ),
        sample_indices=collection.sample_indices[kept],
        sample_labels=np.array([rows[label] for label in collection.sample_labels[kept]], "int64"),
    )


def _numbers(collection: _Collection, classes: Sequence[_Class], counts: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of `BlockGates` but the samples, for all blocks side by side."""
    weights = counts / counts.sum()
    means = np.stack([one.moments.mean for one in classes])
    low = np.stack([one.low for one in classes]) / counts[:, None]
    high = np.stack([one.high for one in classes]) / counts[:, None]
    deviations = collection.together.std
    between = np.sqrt(weights @ np.square(means - collection.together.mean))
    return {
        "mean": means,
        "std": np.stack([one.moments.std for one in classes]),
        "low_share": low,
        "high_share": high,
        "quantiles": np.stack([_quantiles([one], collection) for one in classes]),
        "total_mean": collection.together.mean,
        "total_std": deviations,
        "total_low_share": weights @ low,
        "total_high_share": weights @ high,
        "total_quantiles": _quantiles(classes, collection),
        "between_std": np.where(deviations > 0, between, 0.0),
    }


def _quantiles(classes: Sequence[_Class], collection: _Collection) -> np.ndarray:
    """Quantiles of each gate over the images of some classes, interpolated within the bins: (levels, width)."""
    width, bins = len(collection.lows), collection.bins
    if not bins:
        return np.zeros((0, width))
    histogram = np.sum([one.histogram.reshape(width, bins) for one in classes], axis=0, dtype="int64")
    reached = histogram.cumsum(1)
    found = []
    for level in QUANTILES:
        target = level * reached[:, -1:]
        cell = (reached < target).sum(1, keepdims=True)  # the first bin at which it is reached
        inside = np.take_along_axis(histogram, cell, 1)
        share = (target - (np.take_along_axis(reached, cell, 1) - inside)) / inside
        found.append(collection.lows + (cell + share)[:, 0] / bins * (collection.highs - collection.lows))
    least = np.min([one.least for one in classes], axis=0)
    greatest = np.max([one.greatest for one in classes], axis=0)
    return np.clip(found, least, greatest)
