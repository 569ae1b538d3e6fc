"""Agreement of a file's outputs with those of its reference, and the limits for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from se_keras.export.inputs import Samples
from se_keras.export.runtime import RUNTIMES

ROUNDING = 1e-6  # of the largest value: constant outputs vary by this much
LEAST_PROBABILITY = 1e-12  # runtimes differ in when they flush smaller ones to zero
QUANTITIES = {"logits": "logits", "logit": "logits", "probabilities": "probabilities"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits for an export; None disables a check.

    Args:
        relative_error: Largest allowed difference of a logit, as a fraction of the largest logit.
        top1_agreement: Minimum share of images with the same most probable class.
        accuracy_drop: Largest allowed drop in accuracy, as a fraction of 1.
        squared_error: Largest allowed relative squared error of outputs other than the probabilities of exclusive
            classes.
        headroom: Minimum ratio of the largest half-precision number to the largest sum of a
            squeeze, for files meant for a GPU.
    """

    relative_error: float | None = None
    top1_agreement: float | None = None
    accuracy_drop: float | None = None
    squared_error: float | None = None
    headroom: float | None = 2.0


_EIGHT_BITS = Limits(top1_agreement=0.98, accuracy_drop=0.005, squared_error=0.1)

# By precision. Integer files are judged by their classes and by the noise in all outputs, not by the largest error.
LIMITS = {
    "fp32": Limits(relative_error=1e-4, top1_agreement=0.99, accuracy_drop=0.002),
    "fp16": Limits(relative_error=1e-2, top1_agreement=0.99, accuracy_drop=0.002),
    "bf16": Limits(relative_error=5e-2, top1_agreement=0.98, accuracy_drop=0.005),
    "int8": _EIGHT_BITS,
    "int8_weights": _EIGHT_BITS,
    "dynamic": _EIGHT_BITS,
    "int16x8": _EIGHT_BITS,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """A comparison of a file's outputs with the reference's on the same images.

    Args:
        images: "random" or "real".
        count: Number of images.
        runtime: A key of `RUNTIMES`: where the file ran.
        quantity: "logits" (also recovered from probabilities, up to a common shift),
            "probabilities", or "outputs".
        max_error: The largest difference.
        mean_error: The mean difference.
        relative_error: The largest difference divided by the largest value of the reference.
        squared_error: The sum of all squared differences, divided by the reference's own sum of squared differences
            from the mean of each channel (the relative squared error, 1 - R2); None for probabilities of exclusive
            classes, and if every channel is constant over all samples and positions.
        top1_agreement: Share of images with the same most probable class, or None if the
            output is not a vector of classes.
        top5_agreement: Mean share of common classes among the five most probable, or None.
        exclusive: Whether each image belongs to one class, as the kind of output or the labels show; otherwise the most
            probable class has no limit.
        reference_accuracy: Share of images that the reference classifies correctly, if labeled.
        accuracy: Share of images that the file classifies correctly, if labeled.
        output: Name of the output, if there are several.
        unit: What the images are: "images" or "samples".
        answers: The compared values of the reference and of the file, each of shape
            (n, classes); for figures, not for JSON.
    """

    images: str
    count: int
    runtime: str
    quantity: str
    max_error: float
    mean_error: float
    relative_error: float
    squared_error: float | None = None
    top1_agreement: float | None = None
    top5_agreement: float | None = None
    exclusive: bool = True
    reference_accuracy: float | None = None
    accuracy: float | None = None
    output: str = ""
    unit: str = "images"
    answers: tuple[np.ndarray, np.ndarray] | None = dataclasses.field(default=None, repr=False, compare=False)

    def failures(self, limits: Limits, *, judge_classes: bool) -> Iterator[str]:
        """Yields the violations of the limits.

        Args:
            limits: The limits.
            judge_classes: Whether the images are meaningful for classes and for the noise in the outputs.

        Yields:
            One sentence per violation.
        """
        output = f", {self.output}" if self.output else ""
        where = f"{RUNTIMES[self.runtime]}, {self.count} {self.images} {self.unit}{output}"
        if not math.isfinite(self.max_error):
            yield f"{where}: the outputs of the file are not finite."
            return
        if limits.relative_error is not None and self.relative_error > limits.relative_error:
            yield (
                f"{where}: the {self.quantity} may differ by {limits.relative_error:.2g} of the largest; they differ "
                f"by {_above(limits.relative_error, self.relative_error)}."
            )
        if not judge_classes:
            return
        noise = self.squared_error
        if noise is not None and limits.squared_error is not None and noise > limits.squared_error:
            yield (
                f"{where}: the relative squared error of the outputs may be at most {limits.squared_error:.2g}; it is "
                f"{_above(limits.squared_error, noise)}."
            )
        least = limits.top1_agreement
        top1 = self.top1_agreement if self.exclusive else None
        if top1 is not None and least is not None and top1 < least:
            yield f"{where}: at least {least:.1%} must have the same top class; {top1:.1%} do."
        drop = self.accuracy_drop
        if drop is not None and limits.accuracy_drop is not None and drop > limits.accuracy_drop:
            most = 100 * limits.accuracy_drop
            yield f"{where}: the accuracy may drop by {most:.2f} points; it drops by {100 * drop:.2f}."

    @property
    def accuracy_drop(self) -> float | None:
        """Returns the drop in accuracy from the reference to the file, as a fraction of 1; None without labels."""
        if self.accuracy is None or self.reference_accuracy is None:
            return None
        return self.reference_accuracy - self.accuracy


def _above(limit: float, value: float) -> str:
    """Returns a value above a limit with as many digits as it takes to see that."""
    texts = (f"{value:.{digits}g}" for digits in range(2, 9))
    return next((text for text in texts if float(text) > limit), repr(value))


def compare(
    expected: np.ndarray,
    found: np.ndarray,
    part: Samples,
    *,
    runtime: str,
    dtype: str,
    kind: str = "output",
    greatest: float | None = None,
    output: str = "",
) -> Agreement:
    """Compares two arrays of outputs.

    Args:
        expected: The reference's outputs, shape (n, classes) or any other with n rows.
        found: The file's outputs, of the same shape.
        part: The images that the outputs belong to, with or without labels.
        runtime: A key of `RUNTIMES`.
        dtype: Precision of the file; logits are not recovered from integers.
        kind: Kind of outputs, a key of `se_keras.scores.SIGNATURES`. A single column of a
            probability or logit is judged as two classes.
        greatest: The reference's largest logit, which probabilities close to 0 do not reveal.
        output: Name of the output, if there are several.

    Returns:
        An `Agreement`.

    Raises:
        ValueError: The shapes differ, or a label is not a class.
    """
    if expected.shape != found.shape:
        raise ValueError(
            f"The file and the model must have outputs of the same shape; received shapes {found.shape} and "
            f"{expected.shape}. Pass the model that the file was exported from."
        )
    expected, found = _with_two_classes(expected, kind), _with_two_classes(found, kind)
    quantity, expected_values, found_values = _comparable(expected, found, dtype, kind)
    error = np.abs(expected_values - found_values)
    own = float(np.abs(expected_values).max())
    greatest = max(own, greatest) if greatest is not None and quantity == "logits" else own
    is_classes = expected.ndim == 2 and expected.shape[1] > 1
    are_probabilities = _are_classes(expected, found, kind)
    top1 = float((expected.argmax(-1) == found.argmax(-1)).mean()) if is_classes else None
    accuracy = _accuracies(part.labels, expected, found) if is_classes and part.labels is not None else (None, None)
    return Agreement(
        images=part.name,
        count=len(expected),
        runtime=runtime,
        quantity=quantity,
        max_error=float(error.max()),
        mean_error=float(error.mean()),
        relative_error=float(error.max()) / max(greatest, 1e-12),
        squared_error=None if are_probabilities else _squared_error(expected_values, found_values),
        top1_agreement=top1,
        top5_agreement=_top5(expected, found) if is_classes and expected.shape[1] > 5 else None,
        exclusive=are_probabilities or part.labels is not None or QUANTITIES.get(kind) == "logits",
        reference_accuracy=accuracy[0],
        accuracy=accuracy[1],
        output=output,
        unit=part.unit,
        answers=(expected_values, found_values),
    )


def _with_two_classes(values: np.ndarray, kind: str) -> np.ndarray:
    """Expands a single column to one column for each of two classes; returns other outputs unchanged."""
    if kind == "probability":
        return np.concatenate([1 - values, values], axis=1)
    return np.concatenate([-values, values], axis=1) / 2 if kind == "logit" else values


def _comparable(expected: np.ndarray, found: np.ndarray, dtype: str, kind: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Recovers the logits of a softmax where possible, because probabilities near 0 or 1 hide errors."""
    expected, found = expected.astype("float64"), found.astype("float64")
    if kind in ("probability", "independent_probabilities"):  # near 1, a sigmoid has rounded its logit away
        return "probabilities", expected, found
    if not _are_classes(expected, found, kind):
        return QUANTITIES.get(kind, "outputs"), expected, found
    if dtype in ("int8", "int16x8"):
        return "probabilities", expected, found
    logits = [np.log(np.maximum(values, LEAST_PROBABILITY)) for values in (expected, found)]
    return "logits", *(values - values.mean(-1, keepdims=True) for values in logits)


def _are_classes(expected: np.ndarray, found: np.ndarray, kind: str) -> bool:
    """Returns whether outputs are probabilities of mutually exclusive classes."""
    return kind != "independent_probabilities" and _is_probabilities(expected) and _is_probabilities(found)


def _squared_error(expected: np.ndarray, found: np.ndarray) -> float | None:
    """Returns the relative squared error, with the mean of each channel as the predictor to compare with."""
    channels = tuple(range(expected.ndim - 1)) if expected.ndim > 1 else None
    spread = np.square(expected - expected.mean(channels, keepdims=True)).sum()
    rounding = expected.size * (ROUNDING * float(np.abs(expected).max())) ** 2
    return float(np.square(found - expected).sum() / spread) if spread > rounding else None


def _is_probabilities(values: np.ndarray) -> bool:
    is_rows = values.ndim == 2 and values.shape[1] > 1
    return bool(is_rows and values.min() >= 0 and np.allclose(values.sum(-1), 1, atol=0.05))


def _top5(expected: np.ndarray, found: np.ndarray) -> float:
    best = [np.argsort(-values, axis=-1, kind="stable")[:, :5] for values in (expected, found)]
    return float(np.mean([len(np.intersect1d(*rows)) / 5 for rows in zip(*best, strict=True)]))


def _accuracies(labels: np.ndarray, expected: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    classes = expected.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"`labels` must be between 0 and {classes - 1}, for the model's {classes} classes; received "
            f"{labels.min()} to {labels.max()}."
        )
    return float((expected.argmax(-1) == labels).mean()), float((found.argmax(-1) == labels).mean())
