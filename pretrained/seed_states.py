"""States of several seeds of a network that are trained together, one file per seed.

The state of `se_keras.training.state` is of one model; this one is stacked over the seeds, and lives on the device.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from se_keras.files import replacing

# Stacked over all seeds: trainable, non-trainable, optimizer, and metrics variables, as in Keras' training step.
State = tuple[list[jax.Array], list[jax.Array], list[jax.Array], list[jax.Array]]


@dataclasses.dataclass
class Measurements:
    """The measurements of the seeds of a network so far.

    Args:
        epoch: Number of completed epochs.
        history: Number of epochs, and accuracy and mean loss of each seed after them.
        seconds: Time spent on all seeds together, including compilation.
    """

    epoch: int = 0
    history: list[tuple[int, list[float], list[float]]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


class Checkpoint:
    """The state of some seeds in a folder, with one file per seed to keep the files small.

    The files of an epoch are complete before older ones are removed, so a complete state survives a kill.

    Args:
        folder: The folder.
        name: Name of the network and of everything else that a state depends on.
        seeds: The seeds.
    """

    def __init__(self, folder: pathlib.Path, name: str, seeds: Sequence[int]) -> None:
        self.folder, self.name, self.seeds = folder, name, seeds

    def _file(self, seed: int, epoch: int) -> pathlib.Path:
        return self.folder / f"{self.name}.seed{seed}.epoch{epoch}.npz"

    def save(self, state: State, measured: Measurements) -> None:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        for index, seed in enumerate(self.seeds):
            own = [(epoch, accuracies[index], losses[index]) for epoch, accuracies, losses in measured.history]
            facts = json.dumps([own, measured.seconds])
            with replacing(self._file(seed, measured.epoch), overwrite=True) as temporary:
                np.savez(temporary, facts=facts, **{str(i): leaf[index] for i, leaf in enumerate(leaves)})
        self._remove(keep=measured.epoch)

    def load(self, state: State) -> tuple[State, Measurements]:
        """Returns the newest complete state, or the given new one if there is none, and its measured."""
        epochs = [int(path.suffixes[-2].removeprefix(".epoch")) for path in self._files(self.seeds[0])]
        for epoch in sorted(epochs, reverse=True):
            files = [self._file(seed, epoch) for seed in self.seeds]
            if not all(file.exists() for file in files):
                continue
            parts = [self._read(file) for file in files]
            histories, seconds = zip(*(json.loads(str(part["facts"])) for part in parts), strict=True)
            history = [
                (rows[0][0], [row[1] for row in rows], [row[2] for row in rows])
                for rows in zip(*histories, strict=True)
            ]
            leaves, structure = jax.tree.flatten(state)
            stacked = [jnp.stack([part[str(number)] for part in parts]) for number in range(len(leaves))]
            return jax.tree.unflatten(structure, stacked), Measurements(epoch, history, max(seconds))
        return state, Measurements()

    def remove(self) -> None:
        self._remove(keep=None)
        if self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    @staticmethod
    def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
        with np.load(path) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def _files(self, seed: int) -> list[pathlib.Path]:
        return list(self.folder.glob(f"{self.name}.seed{seed}.epoch*.npz"))

    def _remove(self, keep: int | None) -> None:
        for seed in self.seeds:
            for path in self._files(seed):
                if keep is None or path != self._file(seed, keep):
                    path.unlink()
