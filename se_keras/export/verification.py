"""Verification of an exported file against its model, in the file's own runtime, with time and memory."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.class_names import first_moved
from se_keras.errors import check_count, one_of, refuse_tf_keras
from se_keras.export.agreement import LIMITS, Agreement, Limits, compare
from se_keras.export.exportable import require_tensorflow
from se_keras.export.headroom import Headroom, headroom_of_model, headroom_of_tflite
from se_keras.export.inference_form import in_single_precision, tflite_form
from se_keras.export.inputs import Feed, Samples, in_order, rows_of
from se_keras.export.inspect_tflite import TARGETS
from se_keras.export.layer_loss import LayerLoss, layer_losses, loss_notes
from se_keras.export.process import RuntimeRefusedError, Worker, is_missing_driver
from se_keras.export.report import Report
from se_keras.export.runner import Runner
from se_keras.export.runtime import KerasRunner, open_runner
from se_keras.export.speed import Speed, speed_of
from se_keras.export.structure import Structure, size_of, structure_of
from se_keras.export.tflite_runtime import TFLiteRunner
from se_keras.export.to_tflite import CALIBRATED, converted
from se_keras.export.verification_data import sample_sets, shared_inputs
from se_keras.images.record import Preprocessing
from se_keras.progress import steps
from se_keras.scores import Scores
from se_keras.surgery.layer_facts import is_functional
from se_keras.surgery.outputs import last_softmax
from se_keras.timing import interleaved

WARMUPS = 3
HEADROOM_IMAGES = 16  # the sums of a squeeze vary little between images
LOSS_IMAGES = 32  # every tensor has many values per image
NO_CLASSES = "Without real samples (`data`), the classes and the squared error of an 8-bit file are not judged."
NO_GPU = "There is neither a GPU nor a software driver: GPU refusals are inferred from the operations only."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """The additions of one step of a verification to the fields of a `Report` with the same names."""

    agreements: tuple[Agreement, ...] = ()
    headrooms: tuple[Headroom, ...] = ()
    losses: tuple[LayerLoss, ...] = ()
    speeds: tuple[Speed, ...] = ()
    gpu: str = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        return Findings(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def verify(
    path: str | os.PathLike,
    model: keras.Model | str | os.PathLike | None = None,
    *,
    data: Any = None,
    labels: Sequence[int] | None = None,
    preprocessing: Preprocessing | Callable[[np.ndarray], np.ndarray] | None = None,
    limits: Limits | None = None,
    targets: Sequence[str] = (),
    layers: bool = False,
    most_images: int = 256,
    gpu_images: int = 4,
    repeats: int = 20,
    threads: int = 1,
    verbose: str | int = "auto",
) -> Report:
    """Runs an exported file in its own runtime and compares it with its model, on random and on real samples.

    Random values are in the range that the model states: 0 to 255 for images that it normalizes itself, the rows of an
    embedding for tokens. Otherwise they are in the range of `data`; without it, images range from 0 to 1, and other
    values from -1 to 1. A note in the report states the range.

    Args:
        path: A SavedModel folder, or a `.tflite`, `.onnx`, `.xml` (OpenVINO), or `.keras` file, from this package or
            elsewhere.
        model: The reference: the Keras model, or another exported file. A Keras model that computes
            in half precision is compared in float32, except with a `.keras` file. Without it, only
            the file itself is inspected and measured.
        data: Real images: a folder of photos (its subfolders are classes: in the order of the model's or file's class
            names if they have the same names, else in sorted order; of `train` and `val`, the latter); a list of image
            files; an array of shape (n, height, width, 3), or (array, labels); or a dataset that `fit` takes, such as a
            `tf.data.Dataset`, of images or (images, labels). Values are 0 to 255 for a network that contains its
            preprocessing. For other or several inputs, arrays by name: a dictionary, an `.npz` file (with "labels", if
            known), a tuple in the order of the inputs, or a dataset of these.
        labels: Integer label or one-hot row of each image, for the accuracy. Default: those of the data.
        preprocessing: For a model that does not contain its preprocessing: a `Preprocessing`, or a
            function that converts pixels from 0 to 255 to the model's input. Default: no conversion.
        limits: The limits. Default: the entry of `LIMITS` for the precision of the file.
        targets: Targets in `TARGETS` that must accept the file; refusals by other targets are
            only listed.
        layers: Whether to measure the quantization error of each operation of a `.tflite` file in "int8" or "int16x8",
            on at most 32 images. The model must then be a Keras model, a `.keras` file, or the same export in "fp32".
        most_images: Maximum number of real images, at least 1: evenly spaced ones of files or arrays, the first of a
            dataset.
        gpu_images: Number of images to run a `.tflite` file on in LiteRT's GPU runtime as well;
            0 for none. The report notes when there is neither a GPU nor a software driver.
        repeats: Number of timed runs, in a new process; 0 measures neither time nor memory.
        threads: CPU threads of the timed runs, at least 1.
        verbose: "auto" or 1 to show a progress bar, 0 to show nothing.

    Returns:
        A `Report`: `report.passed` is the verdict, and `print(report)` shows the report.

    Raises:
        FileNotFoundError: `path`, the model, or the folder of images does not exist.
        ImportError: The file's runtime is not installed.
        RuntimeError: A runtime refuses the file or the model; or `layers` is set, and Keras does not run on TensorFlow.
        ValueError: The file is not a model, is damaged, does not fit the model, or takes
            text; images are in the range 0 to 1 where 0 to 255 is expected; there is not one label
            per image; a count is out of its range; or `layers` is set for a file or model without such operations.
    """
    for target in targets:
        one_of("target", target, TARGETS)
    most_images, threads = check_count("most_images", most_images), check_count("threads", threads)
    gpu_images, repeats = check_count("gpu_images", gpu_images, least=0), check_count("repeats", repeats, least=0)
    structure = structure_of(path)
    file, found = _opened(path, structure)
    given = _opened_reference(model)
    reference = given if isinstance(file, KerasRunner) else _in_float32(given)
    if layers:
        _check_layers(path, structure, reference)
    names, unreadable = _names_of(file)
    others = given.class_names if given else ()
    found += _unpaired(file, reference) + _misnamed(names, others) + unreadable
    inputs = shared_inputs(file, reference)
    options: dict[str, Any] = {"most": most_images, "preprocessing": preprocessing, "class_names": others or names}
    sets, notes = sample_sets(given or file, inputs, data, labels, **options)
    found += Findings(notes=notes)
    with steps(f"Verifying {os.fspath(path)}", len(sets) + 3 + layers, verbose=verbose) as advance:
        for part in sets:
            found += _compared(part, file, reference, structure)
            advance()
        if LIMITS[structure.dtype].relative_error is None and data is None and reference is not None:
            found += Findings(notes=(NO_CLASSES,))
        found += _on_gpu(path, structure, sets[-1].few(gpu_images), file, reference)
        advance()
        found += Findings(headrooms=_headrooms(path, structure, model, sets[-1].few(HEADROOM_IMAGES).feed))
        advance()
        if layers:
            found += _lost(path, model, reference, sets[-1].few(LOSS_IMAGES).feed)
            advance()
        found += _timed(path, threads, repeats) if repeats and not found.problems else Findings()
        advance()
    return Report(
        path=os.fspath(path),
        size=size_of(path),
        reference=_name_of(model, precision="" if reference is given else ", in float32"),
        targets=tuple(targets),
        limits=limits or LIMITS[structure.dtype],
        **{name: value for name, value in vars(structure).items() if name != "graph"},
        **vars(found),
    )


def _opened(path: str | os.PathLike, structure: Structure) -> tuple[Runner, Findings]:
    try:
        return open_runner(path), Findings()
    except RuntimeError as error:
        if structure.format != "tflite":
            raise
        reason = " ".join(str(error).split())
        problem = f"LiteRT's CPU kernels (XNNPACK) refuse the file, so applications cannot run it: {reason}"
        return TFLiteRunner(path, kernels="reference"), Findings(problems=(problem,))


def _opened_reference(model: keras.Model | str | os.PathLike | None) -> Runner | None:
    if model is None:
        return None
    refuse_tf_keras(model)
    return KerasRunner(model) if isinstance(model, keras.Model) else open_runner(model)


def _in_float32(reference: Runner | None) -> Runner | None:
    """Returns the runner of a Keras model in float32: half precision is too coarse to compare with."""
    if not isinstance(reference, KerasRunner) or not is_functional(reference.model):
        return reference
    single = in_single_precision(reference.model)
    return reference if single is reference.model else KerasRunner(single)


def _name_of(model: keras.Model | str | os.PathLike | None, *, precision: str) -> str | None:
    if model is None:
        return None
    name = f"the Keras model {model.name}" if isinstance(model, keras.Model) else os.fspath(model)
    return name + precision


def _compared(part: Samples, file: Runner, reference: Runner | None, structure: Structure) -> Findings:
    answers = file.run(part.feed)
    if reference is None:
        problem = f"{rows_of(part.feed)} {part.name} {part.unit}: the outputs of the file are not finite."
        is_finite = all(np.isfinite(answer).all() for answer in answers.values())
        return Findings() if is_finite else Findings(problems=(problem,))
    notes: tuple[str, ...] = ()
    own = _paired(file, reference).get(reference.answer)
    classes = Scores(reference.kind, answers[own].shape[-1]).classes if own else 0
    if own and part.folders and len(part.folders) != classes:
        notes = (f"No accuracy: {len(part.folders)} subfolders of photos do not match the model's {classes} classes.",)
        part = dataclasses.replace(part, labels=None)
    found = _agreements(reference, file, answers, part, runtime=structure.format, dtype=structure.dtype)
    return Findings(agreements=found, notes=notes)


def _paired(file: Runner, reference: Runner) -> dict[str, str]:
    """Returns the output of the file for each output of the reference that is compared."""
    if len(file.outputs) == 1 or len(reference.outputs) == 1:
        both = set(file.outputs) & set(reference.outputs)
        return {name: name for name in both} or {reference.answer: file.answer}
    if set(file.outputs) != set(reference.outputs):
        raise ValueError(
            f"The file and the model must have the same outputs; received {', '.join(map(repr, file.outputs))} and "
            f"{', '.join(map(repr, reference.outputs))}."
        )
    return {name: name for name in reference.outputs}


def _unpaired(file: Runner, reference: Runner | None) -> Findings:
    """Reports the outputs that are not compared because only the file or only the reference has them."""
    if reference is None or len(file.outputs) == len(reference.outputs):
        return Findings()
    ((name, own),) = _paired(file, reference).items()
    compared = f"only {own!r} is compared with the model's {name!r}."
    lacking = [repr(each) for each in reference.outputs if each != name]
    if lacking and len(file.outputs) == 1:
        return Findings(problems=(f"The file lacks outputs of the model, {', '.join(lacking)}; {compared}",))
    return Findings(notes=(f"The file has {len(file.outputs)} outputs, and the model has one; {compared}",))


def _names_of(file: Runner) -> tuple[tuple[str, ...], Findings]:
    """Returns the class names in a file, and a note if it is somebody else's and they cannot be read."""
    try:
        return file.class_names, Findings()
    except ValueError as error:
        return (), Findings(notes=(f"The class names in the file cannot be read. {error}",))


def _misnamed(names: Sequence[str], others: Sequence[str]) -> Findings:
    """Reports class names that the file and the reference, in this order, have in another order."""
    place = first_moved(names, others)
    if place is None:
        return Findings()
    problem = f"The file names class {place} {names[place]!r}, and the model names it {others[place]!r}."
    return Findings(problems=(problem,))


def _agreements(
    reference: Runner, file: Runner, answers: Mapping[str, np.ndarray], part: Samples, *, runtime: str, dtype: str
) -> tuple[Agreement, ...]:
    expected, pairs = reference.run(part.feed), _paired(file, reference)
    return tuple(
        compare(
            expected[name],
            answers[own],
            part if name == reference.answer else dataclasses.replace(part, labels=None),
            output=name if len(pairs) > 1 else "",
            runtime=runtime,
            dtype=dtype,
            kind=reference.kinds[name],
            greatest=_greatest_logit(reference, part.feed),
        )
        for name, own in pairs.items()
    )


def _greatest_logit(reference: Runner, feed: Feed) -> float | None:
    """Returns the largest centered logit before a Keras model's softmax; None if it has several outputs or none."""
    if not isinstance(reference, KerasRunner) or len(reference.outputs) > 1:
        return None
    found = last_softmax(reference.model)
    if found is None:
        return None
    last, before = found
    runner = KerasRunner(keras.Model(reference.model.inputs, before))
    values = in_order(reference.inputs, feed)
    logits = runner.run(dict(zip((one.name for one in runner.inputs), values, strict=True)))[runner.answer]
    if isinstance(last, keras.layers.Dense):
        logits = logits @ np.asarray(keras.ops.convert_to_numpy(last.kernel), "float32")
        logits = logits if last.bias is None else logits + keras.ops.convert_to_numpy(last.bias)
    return float(np.abs(logits - logits.mean(-1, keepdims=True)).max())


def _on_gpu(
    path: str | os.PathLike, structure: Structure, part: Samples, file: Runner, reference: Runner | None
) -> Findings:
    if structure.format != "tflite" or not rows_of(part.feed):
        return Findings()
    try:
        with Worker(path, runtime="tflite_gpu") as worker:
            answers = worker.run(part.feed)
    except RuntimeRefusedError as refusal:
        return Findings(notes=(NO_GPU,)) if is_missing_driver(refusal) else Findings(gpu=str(refusal))
    if reference is None:
        return Findings(gpu="resident")
    found = _agreements(reference, file, answers, part, runtime="tflite_gpu", dtype=structure.dtype)
    return Findings(gpu="resident", agreements=found)


def _headrooms(path: str | os.PathLike, structure: Structure, model: Any, feed: Feed) -> tuple[Headroom, ...]:
    if structure.graph is not None:
        return headroom_of_tflite(path, structure.graph, feed)
    return headroom_of_model(model, feed) if isinstance(model, keras.Model) else ()


def _check_layers(path: str | os.PathLike, structure: Structure, reference: Runner | None) -> None:
    if structure.format != "tflite" or structure.dtype not in CALIBRATED:
        raise ValueError(
            f"`layers` (--layers) requires a .tflite file in {' or '.join(CALIBRATED)}; {os.fspath(path)!r} is "
            f"{structure.format}, {structure.dtype}."
        )
    if not isinstance(reference, KerasRunner | TFLiteRunner):
        raise ValueError(
            "`layers` (--layers) requires the model that the file was exported from: a Keras model, a .keras file, or "
            "the same export with dtype='fp32'."
        )


def _lost(path: str | os.PathLike, model: Any, reference: Runner | None, feed: Feed) -> Findings:
    with _in_float(model, reference, feed, TFLiteRunner(path, kernels="reference").batch or 1) as twin:
        losses, unpaired = layer_losses(path, twin, feed)
    return Findings(losses=losses, notes=loss_notes(losses, unpaired))


@contextlib.contextmanager
def _in_float(model: Any, reference: Runner | None, feed: Feed, batch: int) -> Iterator[str | os.PathLike]:
    """Provides the graph of an integer file as a float `.tflite` file."""
    if not isinstance(reference, KerasRunner):
        yield model
        return
    require_tensorflow("`layers` (--layers)")
    form = tflite_form(reference.model, feed, is_quantized=True)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "float.tflite")
        path.write_bytes(converted(form, "fp32", batch_size=batch))
        yield path


def _timed(path: str | os.PathLike, threads: int, repeats: int) -> Findings:
    try:
        with Worker(path, threads=threads) as worker:
            seconds = interleaved({"file": worker.time}, rounds=repeats, warmups=WARMUPS)["file"]
            return Findings(speeds=(speed_of(worker.runtime, threads, seconds, worker.peak_memory()),))
    except RuntimeRefusedError as refusal:
        return Findings(problems=(str(refusal),))
