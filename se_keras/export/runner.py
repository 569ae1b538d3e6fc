"""A model in one runtime: it takes the inputs by name and returns float outputs by name.

Nothing here imports Keras: runners also run in processes that measure time and memory.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from se_keras.export.inputs import Feed, Input, filled, in_order, part_of, rows_of
from se_keras.export.stated import facts_stated, names_stated

LARGEST_BATCH = 32  # samples at a time for a runtime that takes any number


class Runner(abc.ABC):
    """A model in one runtime.

    Attributes:
        inputs: Its inputs.
        batch: Samples per call of the runtime; None for any number.
        outputs: The names of its outputs.
        answer: The output that is the prediction.
        kinds: Kind of each output, a key of `se_keras.scores.SIGNATURES`; "output" if the file does not state it.
    """

    inputs: tuple[Input, ...]
    batch: int | None = None
    outputs: tuple[str, ...]
    answer: str
    kinds: Mapping[str, str]

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Returns the shape of the first input: (batch, height, width, channels) for images; None for unknown sizes."""
        return (self.batch, *self.inputs[0].shape)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the class names in the order of the outputs; () if the model or file does not hold them."""
        return ()

    @property
    def resizing(self) -> Mapping[str, Any]:
        """Returns how photos are resized, as a file states it: "crop_pct" and "interpolation"; {} if it does not."""
        return {}

    @property
    def kind(self) -> str:
        """Returns the kind of the prediction."""
        return self.kinds[self.answer]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Runs a model with one input.

        Args:
            images: Array of shape (n, *shape of the input) in the scale of the model's input (for this package's
                networks: RGB, 0 to 255), of any dtype.

        Returns:
            The prediction: float32 array of shape (n, classes), or (n, ...) for other outputs.
        """
        return self.run({self.inputs[0].name: images})[self.answer]

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Runs the model, in batches of its own size.

        Args:
            feed: The value of each input by its name, with one row per sample. The value of a single input may have
                any name.

        Returns:
            Float32 array of each output by its name, with one row per sample.

        Raises:
            ValueError: The names are not those of the inputs.
        """
        step = self.batch or LARGEST_BATCH
        parts = [self._padded(part_of(feed, start, start + step)) for start in range(0, rows_of(feed), step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _padded(self, feed: Feed) -> dict[str, np.ndarray]:
        rows = rows_of(feed)
        whole = feed if self.batch in (None, rows) else filled(feed, self.batch or rows)
        answers = self.run_one(in_order(self.inputs, whole))
        return {name: answer[:rows] for name, answer in zip(self.outputs, answers, strict=True)}

    @abc.abstractmethod
    def run_one(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs one batch of the model's own size.

        Args:
            values: The inputs, in their order.

        Returns:
            The outputs, in their order, as float32.
        """


class StatingRunner(Runner):
    """A file that states facts about itself as text by name, as `export.onnx` and `export.openvino` write them."""

    stated: Mapping[str, str]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names that the file states."""
        return names_stated(self.stated.get("class_names"))

    @property
    def resizing(self) -> Mapping[str, Any]:
        """Returns what the file states about its input."""
        return facts_stated(self.stated.get("input"))


def check_inputs(path: str | os.PathLike, dtypes: Sequence[str]) -> None:
    """Rejects a file that cannot be fed from NumPy arrays.

    Args:
        path: The file, for the message.
        dtypes: Dtype of each input.

    Raises:
        ValueError: There is no input, or one of a dtype that NumPy lacks.
    """
    if not dtypes or not all(dtype == "string" or _is_number(dtype) for dtype in dtypes):
        raise ValueError(
            f"A model must have inputs of dtypes that NumPy has; {os.fspath(path)!r} has "
            f"{', '.join(dtypes) or 'no inputs'}."
        )


def _is_number(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False
