"""Verification of an exported file against its model, in the file's own runtime, with time and memory."""

from __future__ import annotations

import dataclasses
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.errors import one_of
from se_keras.export.headroom import Headroom, headroom_of_model, headroom_of_tflite
from se_keras.export.images import (
    ImageSet,
    check_range,
    left_out,
    preparation_of,
    random_images,
    real_images,
    takes_pixels,
)
from se_keras.export.inspect_tflite import TARGETS
from se_keras.export.process import RuntimeRefusedError, Worker, is_missing_driver
from se_keras.export.report import LIMITS, Agreement, Limits, Report, Speed
from se_keras.export.runtime import KerasRunner, Runner, TFLiteRunner, open_runner
from se_keras.export.structure import Structure, size_of, structure_of
from se_keras.scores import Scores
from se_keras.surgery.outputs import last_softmax

WARMUPS = 3
LEAST_PROBABILITY = 1e-12  # runtimes differ in when they flush smaller ones to zero
QUANTITIES = {"logits": "logits", "logit": "logits", "probabilities": "probabilities"}
HEADROOM_IMAGES = 16  # the sums of a squeeze vary little between images


def verify(
    path: str | os.PathLike,
    model: keras.Model | str | os.PathLike | None = None,
    *,
    data: Any = None,
    labels: Sequence[int] | None = None,
    prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    limits: Limits | None = None,
    targets: Sequence[str] = (),
    most_images: int = 256,
    gpu_images: int = 4,
    repeats: int = 20,
    threads: int = 1,
) -> Report:
    """Runs an exported file in its own runtime and compares it with its model, on random and on real images.

    Args:
        path: A SavedModel folder, or a `.tflite`, `.onnx`, or `.keras` file, from this package or
            elsewhere.
        model: The reference: the Keras model, or another exported file. Without it, only the file
            itself is inspected and measured.
        data: Real images: a folder of photos (its subfolders are classes, in the order of their
            names), an array of shape (n, height, width, 3), or an iterable, such as a `tf.data`
            pipeline, of images or (images, labels). Values 0 to 255.
        labels: Integer label of each image, for the accuracy. Default: those of the data.
        prepare: Function that converts pixels from 0 to 255 to the model's input, for a model
            without its preprocessing inside. Default: no conversion.
        limits: The limits. Default: the entry of `LIMITS` for the precision of the file.
        targets: Targets in `TARGETS` that must accept the file; refusals by other targets are
            only listed.
        most_images: Maximum number of real images, at least 1.
        gpu_images: Number of images to run a `.tflite` file on in LiteRT's GPU runtime as well;
            0 for none. The report states if there is neither a GPU nor a software driver.
        repeats: Number of timed runs, in a new process; 0 measures neither time nor memory.
        threads: CPU threads of the timed runs, at least 1.

    Returns:
        A `Report`: `report.passed` is the verdict, and `print(report)` shows the report.

    Raises:
        FileNotFoundError: `path` or the folder of images does not exist.
        ImportError: The file's runtime is not installed.
        ValueError: A file that is not a model or is damaged, does not fit the model, or does not
            take images; images in the range 0 to 1 where 0 to 255 is expected; or a number of
            labels other than one per image.
    """
    for target in targets:
        one_of("target", target, TARGETS)
    structure = structure_of(path)
    problems: list[str] = []
    notes: list[str] = []
    file = _opened(path, structure, problems)
    reference = _reference(model)
    shape = _image_shape(file, reference)
    sets = _image_sets(model, data, labels, shape, most_images, notes)
    if prepare is not None:
        sets = [dataclasses.replace(part, images=np.asarray(prepare(part.images), "float32")) for part in sets]
    if reference is None:
        agreements = []
        problems += [_not_finite(part) for part in sets if not np.isfinite(file(part.images)).all()]
    else:
        sets = [_with_sure_labels(part, reference, notes) for part in sets]
        agreements = [_agreement(part, file, reference, structure) for part in sets]
    if structure.dtype not in ("fp32", "fp16") and data is None and reference is not None:
        notes.append("Without real images (`data`), the classes of an integer file are not judged.")
    on_gpu, gpu = _on_gpu(path, structure, sets[-1], reference, gpu_images, notes)
    return Report(
        path=os.fspath(path),
        format=structure.format,
        dtype=structure.dtype,
        size=size_of(path),
        reference=_name_of(model),
        inputs=structure.inputs,
        outputs=structure.outputs,
        operations=structure.operations,
        opset=structure.opset,
        agreements=tuple(agreements) + on_gpu,
        refusals=structure.refusals,
        headrooms=_headrooms(path, structure, model, sets[-1].images[:HEADROOM_IMAGES]),
        speeds=_speeds(path, threads, repeats, problems) if not problems else (),
        gpu=gpu,
        targets=tuple(targets),
        limits=limits or LIMITS[structure.dtype],
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _opened(path: str | os.PathLike, structure: Structure, problems: list[str]) -> Runner:
    try:
        return open_runner(path)
    except RuntimeError as error:
        if structure.format != "tflite":
            raise
        reason = " ".join(str(error).split())
        problems.append(f"LiteRT's CPU kernels (XNNPACK) refuse the file, so applications cannot run it: {reason}")
        return TFLiteRunner(path, kernels="reference")


def _reference(model: keras.Model | str | os.PathLike | None) -> Runner | None:
    if model is None:
        return None
    return KerasRunner(model) if isinstance(model, keras.Model) else open_runner(model)


def _name_of(model: keras.Model | str | os.PathLike | None) -> str | None:
    if model is None:
        return None
    return f"the Keras model {model.name}" if isinstance(model, keras.Model) else os.fspath(model)


def _image_shape(file: Runner, reference: Runner | None) -> tuple[int, int, int]:
    shapes = [tuple(runner.input_shape[1:]) for runner in (file, reference) if runner is not None]
    if any(len(shape) != 3 for shape in shapes):
        raise ValueError(f"The input must be images of shape (height, width, channels); received shape {shapes[0]}.")
    merged = []
    for sizes in zip(*shapes, strict=True):
        known = {size for size in sizes if size is not None}
        if len(known) > 1:
            raise ValueError(
                f"The file and the model must have the same input shape; received {shapes[0]} and {shapes[1]}."
            )
        merged.append(known.pop() if known else 224)
    return merged[0], merged[1], merged[2]


def _image_sets(
    model: Any, data: Any, labels: Sequence[int] | None, shape: tuple[int, int, int], most: int, notes: list[str]
) -> list[ImageSet]:
    sets = [random_images(shape, 8)]
    if data is None:
        if labels is not None:
            raise ValueError("`labels` require images; received labels without `data`. Pass the images as `data`.")
        notes.append("Compared on random images only; pass photos as `data` (--data).")
        return sets
    model = model if isinstance(model, keras.Model) else None
    real = real_images(data, labels, shape, record=preparation_of(model, shape[:2]), most=most)
    if model is not None and takes_pixels(model):
        check_range(real.images)
    if real.broken:
        notes.append(left_out(real.broken))
    return [*sets, real]


def _not_finite(part: ImageSet) -> str:
    return f"{len(part.images)} {part.name} images: the outputs of the file are not finite."


def _with_sure_labels(part: ImageSet, reference: Runner, notes: list[str]) -> ImageSet:
    """Drops labels from subfolders whose number differs from the model's classes."""
    if part.folders is None:
        return part
    classes = Scores(reference.kind, reference(part.images[:1]).shape[-1]).classes
    if part.folders == classes:
        return part
    notes.append(f"No accuracy: {part.folders} subfolders of photos do not match the model's {classes} classes.")
    return dataclasses.replace(part, labels=None)


def _agreement(part: ImageSet, file: Runner, reference: Runner, structure: Structure) -> Agreement:
    return compare(
        reference(part.images),
        file(part.images),
        part,
        runtime=structure.format,
        dtype=structure.dtype,
        kind=reference.kind,
        greatest=_greatest_logit(reference, part.images),
    )


def _greatest_logit(reference: Runner, images: np.ndarray) -> float | None:
    """Returns the largest centered logit before a Keras model's softmax; None if it has no softmax."""
    if not isinstance(reference, KerasRunner):
        return None
    found = last_softmax(reference.model)
    if found is None:
        return None
    last, before = found
    logits = KerasRunner(keras.Model(reference.model.inputs[0], before))(images)
    if isinstance(last, keras.layers.Dense):
        logits = logits @ np.asarray(keras.ops.convert_to_numpy(last.kernel), "float32")
        logits = logits if last.bias is None else logits + keras.ops.convert_to_numpy(last.bias)
    return float(np.abs(logits - logits.mean(-1, keepdims=True)).max())


def compare(
    expected: np.ndarray,
    found: np.ndarray,
    part: ImageSet,
    *,
    runtime: str,
    dtype: str,
    kind: str = "output",
    greatest: float | None = None,
) -> Agreement:
    """Compares two arrays of outputs.

    Args:
        expected: The reference's outputs, shape (n, classes) or any other with n rows.
        found: The file's outputs, of the same shape.
        part: The images they belong to, with or without labels.
        runtime: A key of `RUNTIMES`.
        dtype: Precision of the file; logits are not recovered from integers.
        kind: Kind of outputs, a key of `se_keras.scores.SIGNATURES`. A single column of a
            probability or logit is judged as two classes.
        greatest: The reference's largest logit, which vanishing probabilities do not reveal.

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
        top1_agreement=top1,
        top5_agreement=_top5(expected, found) if is_classes and expected.shape[1] > 5 else None,
        reference_accuracy=accuracy[0],
        accuracy=accuracy[1],
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
    if not (_is_probabilities(expected) and _is_probabilities(found)):
        return QUANTITIES.get(kind, "outputs"), expected, found
    if dtype in ("int8", "int16x8"):
        return "probabilities", expected, found
    logits = [np.log(np.maximum(values, LEAST_PROBABILITY)) for values in (expected, found)]
    return "logits", *(values - values.mean(-1, keepdims=True) for values in logits)


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


def _on_gpu(
    path: str | os.PathLike,
    structure: Structure,
    part: ImageSet,
    reference: Runner | None,
    count: int,
    notes: list[str],
) -> tuple[tuple[Agreement, ...], str]:
    if structure.format != "tflite" or count == 0:
        return (), ""
    images = part.images[:count]
    labels = None if part.labels is None else part.labels[:count]
    part = ImageSet(part.name, images, labels)
    try:
        with Worker(path, runtime="tflite_gpu") as worker:
            found = worker.run(images)
    except RuntimeRefusedError as refusal:
        if not is_missing_driver(refusal):
            return (), str(refusal)
        notes.append("No GPU and no software driver was found: GPU refusals are inferred from the operations only.")
        return (), ""
    if reference is None:
        return (), "resident"
    greatest = _greatest_logit(reference, images)
    expected = reference(images)
    agreement = compare(
        expected,
        found,
        part,
        runtime="tflite_gpu",
        dtype=structure.dtype,
        kind=reference.kind,
        greatest=greatest,
    )
    return (agreement,), "resident"


def _headrooms(path: str | os.PathLike, structure: Structure, model: Any, images: np.ndarray) -> tuple[Headroom, ...]:
    if structure.graph is not None:
        return headroom_of_tflite(path, structure.graph, images)
    return headroom_of_model(model, images) if isinstance(model, keras.Model) else ()


def _speeds(path: str | os.PathLike, threads: int, repeats: int, problems: list[str]) -> tuple[Speed, ...]:
    if repeats == 0:
        return ()
    try:
        with Worker(path, threads=threads) as worker:
            seconds = [worker.time() for _ in range(WARMUPS + repeats)][WARMUPS:]
            return (speed_of(worker.runtime, threads, seconds, worker.peak_memory()),)
    except RuntimeRefusedError as refusal:
        problems.append(str(refusal))
        return ()


def speed_of(runtime: str, threads: int, seconds: Sequence[float], peak_memory: int, *, batch: int = 1) -> Speed:
    """Summarizes timed runs.

    Args:
        runtime: A key of `RUNTIMES`.
        threads: CPU threads.
        seconds: Seconds of each run, at least one.
        peak_memory: Peak memory in bytes.
        batch: Images per run.

    Returns:
        A `Speed`.
    """
    quarter, three_quarters = (float(np.quantile(seconds, share)) for share in (0.25, 0.75))
    return Speed(
        runtime=runtime,
        threads=threads,
        batch=batch,
        runs=len(seconds),
        median=statistics.median(seconds),
        least=min(seconds),
        quartiles=(quarter, three_quarters),
        peak_memory=peak_memory,
        seconds=tuple(seconds),
    )
