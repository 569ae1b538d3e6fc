"""Statistics of a network's gates, and their file format."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import numpy as np

from se_keras.array_files import read_arrays
from se_keras.file_kinds import damaged
from se_keras.files import replacing

FORMAT = "se_keras gates 1"

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
    """Statistics of the gates of one SE block. `total_` marks those over all images, regardless of class.

    Args:
        name: Name of the block.
        limits: Lowest and highest possible gate: (0, 1) for a sigmoid, (0, 2) with
            `gate_init="identity"`; for gates without such limits, as of a ReLU, the range of the histogram.
        mean: Mean gate, shape (classes, channels).
        std: Standard deviation within a class, (classes, channels).
        low_share: Share of the images whose gate is in the lowest hundredth of the range (below
            0.01 for a sigmoid), (classes, channels), 0 to 1; for gates without limits, the share that is 0.
        high_share: The same for the highest hundredth (above 0.99); 0 for gates without limits.
        quantiles: Shape (classes, levels, channels), from histograms: accurate to the width of a
            bin, or of two for gates without limits. No levels if quantiles are disabled.
        total_mean: Shape (channels,).
        total_std: Shape (channels,).
        total_low_share: Shape (channels,).
        total_high_share: Shape (channels,).
        total_quantiles: Shape (levels, channels).
        between_std: Standard deviation of the class means, weighted by the images of each class, (channels,).
        samples: Gates of individual images, (samples, channels).
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
        """Returns the number of gates."""
        return len(self.total_mean)

    @property
    def class_share(self) -> np.ndarray:
        """Returns the variance between classes as a share of the variance over all images.

        Returns:
            Shape (channels,). 0: the gate does not distinguish classes, or never changes; 1: it
            depends on the class alone. By chance alone it is (classes - 1) / (images - 1).
        """
        total = np.square(self.total_std)
        return np.divide(np.square(self.between_std), total, out=np.zeros_like(total), where=total > 0)

    @property
    def class_specificity(self) -> float:
        """Returns `class_share` for the whole block: variances are summed over channels first."""
        total = float(np.square(self.total_std).sum())
        return float(np.square(self.between_std).sum()) / total if total > 0 else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Gates:
    """Statistics of the gates of a network, as returned by `collect_gates`.

    Args:
        network: Name of the model.
        title: Description of the images.
        class_names: Class names in the order of the arrays' rows; ("all",) without labels.
        counts: Number of images of each class, (classes,).
        levels: Levels of the quantiles, each between 0 and 1.
        bins: Bins of the histograms for the quantiles: their resolution is the range / `bins`.
        blocks: One entry per SE block, in the order of the network.
        sample_indices: Positions in the dataset of the images in `samples`, (samples,).
        sample_labels: Indices in `class_names` of these images, (samples,).
    """

    network: str
    title: str
    class_names: tuple[str, ...]
    counts: np.ndarray
    levels: tuple[float, ...]
    bins: int
    blocks: tuple[BlockGates, ...]
    sample_indices: np.ndarray
    sample_labels: np.ndarray

    @property
    def images(self) -> int:
        """Returns the number of images."""
        return int(self.counts.sum())

    def block(self, name: str) -> BlockGates:
        """Returns the gates of a block by its name.

        Args:
            name: Name of the block, such as "stage2_block1_se".

        Returns:
            Its gates.

        Raises:
            ValueError: No block has this name; the message lists all names.
        """
        for block in self.blocks:
            if block.name == name:
                return block
        raise ValueError(f"No SE block is called {name!r}. Options: {', '.join(b.name for b in self.blocks)}.")

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Writes the statistics to one compressed file, which `Gates.load` reads.

        Args:
            path: The file to write, ending in .npz; it appears only when complete.
            overwrite: Whether to replace an existing file.

        Raises:
            FileExistsError: The file exists, and `overwrite` is False.
            ValueError: `path` does not end in .npz.
        """
        if not os.fspath(path).endswith(".npz"):
            raise ValueError(f"`path` must end in .npz; received {os.fspath(path)!r}.")
        about = {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("network", "class_names", "levels", "bins")},
            "data": self.title,
            "blocks": [{"name": block.name, "limits": block.limits} for block in self.blocks],
        }
        arrays = {f"{i}/{name}": getattr(block, name) for i, block in enumerate(self.blocks) for name in ARRAYS}
        arrays |= {name: getattr(self, name) for name in ("counts", "sample_indices", "sample_labels")}
        with replacing(path, overwrite=overwrite) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, about=json.dumps(about), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Gates:
        """Reads a file written by `save`.

        Args:
            path: The file.

        Returns:
            The same statistics.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file has other content.
        """
        arrays = read_arrays(path)
        try:
            about = json.loads(str(arrays.get("about", "{}")))
            if about.get("format") != FORMAT:
                raise ValueError(f"{os.fspath(path)!r} was not written by `Gates.save` of this version.")
            return cls._from(about, arrays)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise damaged(path, "file of gates", repr(error), containers=("a zip archive",)) from error

    @classmethod
    def _from(cls, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Gates:
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
            title=about["data"],
            class_names=tuple(about["class_names"]),
            counts=arrays["counts"],
            levels=tuple(about["levels"]),
            bins=about["bins"],
            blocks=tuple(blocks),
            sample_indices=arrays["sample_indices"],
            sample_labels=arrays["sample_labels"],
        )
