"""Classification of all images of a folder, into one table."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Collection, Sequence

import keras

from se_keras.class_names import class_names_for, imagenet_classes
from se_keras.errors import check_count, check_count_or_none, one_of
from se_keras.prediction import cluster
from se_keras.prediction.classifier import Question, as_lines, classified
from se_keras.prediction.fingerprint import fingerprint
from se_keras.prediction.job import Job, Settings, opened, result_of
from se_keras.prediction.merge import check_output, job_folder, merge, output_targets
from se_keras.preprocessing import preprocessing_of
from se_keras.progress import steps
from se_keras.surgery.outputs import scores_of


@dataclasses.dataclass(frozen=True)
class FolderPrediction:
    """The result of `predict_folder`.

    Args:
        output: The table of predictions.
        classified: Number of images in the table, one per row.
        broken: Number of files that could not be read.
        broken_list: The table of those files and the reasons, or None if there are none.
        resumed: Number of files that an earlier, interrupted call had processed.
        added: Number of images that were added to the folder after an interrupted call had started; they are left out.
    """

    output: pathlib.Path
    classified: int
    broken: int
    broken_list: pathlib.Path | None
    resumed: int
    added: int


def predict_folder(
    model: keras.Model,
    folder: str | os.PathLike,
    output: str | os.PathLike,
    *,
    top: int = 5,
    batch_size: int = 32,
    class_names: Sequence[str] | None = None,
    engine: str = "local",
    workers: int | None = None,
    gpus_per_worker: float = 0,
    part_size: int = 256,
    overwrite: bool = False,
    verbose: str | int = "auto",
) -> FolderPrediction:
    """Classifies every image of a folder and its subfolders, and writes one table. For a few images, use `classify`.

    Memory use does not grow with the number of images. Predictions are collected in a folder `<output>.parts`, which is
    removed at the end. If the call is interrupted, even by `kill -9`, the same call resumes where it stopped; no image
    is lost, and none appears twice.

    Args:
        model: A model that includes its preprocessing. Logits get a softmax (one logit: a sigmoid); one output is the
            probability of the second of two classes.
        folder: Folder of the images. Names that start with a dot are left out.
        output: A .parquet file (needs pyarrow: `pip install 'se_keras[parquet]'`) or a .csv
            file. Columns: `file` (relative to `folder`), then `id_1`, `label_1`, `probability_1`
            (a fraction of 1) of the most probable class, `id_2` and so on. Rows are in the order
            of the files. Files that cannot be read are listed next to it in `<stem>.broken.csv`, or for a
            .parquet file in `<name>.broken.csv`.
        top: Number of classes per image, at least 1; limited to the number of classes.
        batch_size: Number of images per batch, at least 1.
        class_names: Class names in the order of the outputs; two for one output. Default: the model's own, or
            ImageNet's.
        engine: "local": this process. "ray": Ray Data (`pip install 'se_keras[ray]'`) on the
            cluster that Ray is connected to or finds (`RAY_ADDRESS`), else on one that it starts
            on this machine. Every machine needs this package, and the images under the same path.
        workers: With engine "ray", the largest number of tasks at the same time. Default: one per CPU.
        gpus_per_worker: With engine "ray", the number of GPUs, or fraction of one, per task.
        part_size: Largest number of files (per worker) to classify again after an interruption.
        overwrite: Whether to replace an earlier output and its list of broken files. A file with one of these names but
            other content is never replaced. Unfinished work is resumed in any case.
        verbose: "auto" or 1 to show a progress bar, 0 to show none.

    Returns:
        The `FolderPrediction`.

    Raises:
        FileNotFoundError: There is no such folder.
        FileExistsError: The output or the list of broken files already exists.
        ValueError: The folder has no image, the class names do not fit the model, the output has another suffix, or
            the unfinished work has another model, folder, or setting (the message lists the differences) or a damaged
            list of files.
        ImportError: A package that the output or engine needs is not installed.
        InUseError: Another process is writing the same output.
        RuntimeError: Ray could not finish the work.
    """
    top, batch_size = check_count("top", top), check_count("batch_size", batch_size)
    part_size = check_count("part_size", part_size)
    workers = check_count_or_none("workers", workers)
    _check_engine(engine, workers, gpus_per_worker)
    output, folder = pathlib.Path(output), pathlib.Path(folder)
    check = functools.partial(check_output, output, overwrite=overwrite)
    check()  # before the minutes that listing a large folder takes
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of images at {os.fspath(folder)!r}.")
    names = _class_names(model, class_names)
    settings = Settings(
        folder=os.fspath(folder.resolve()),
        model=model.name,
        fingerprint=fingerprint(model),
        class_names=hashlib.sha256(json.dumps(names).encode()).hexdigest(),
        top=min(top, len(names)),
        part_size=part_size,
    )
    with contextlib.ExitStack() as stack:
        with steps("Listing images", None, verbose=verbose):
            job = stack.enter_context(opened(job_folder(output), settings, check))
        made = result_of(job.path, output)
        done = set(job.indices) if made else job.done()
        question = Question(
            folder=settings.folder,
            class_names=class_names_for(model, class_names, scores_of(model).classes),
            top=settings.top,
            batch_size=min(batch_size, part_size, job.count),
        )
        resumed = job.files_in(done)
        with steps("Classifying", job.count - resumed, verbose=verbose) as advance:
            if made is None and engine == "ray":
                cluster.run(model, question, job, done, advance, workers=workers, gpus_per_worker=gpus_per_worker)
            elif made is None:
                classify_here(model, question, job, done, advance)
        classified, broken = made or merge(job, output, overwrite=overwrite)
        job.remove()
    broken_list = list(output_targets(output))[1]
    return FolderPrediction(
        output=output,
        classified=classified,
        broken=broken,
        broken_list=pathlib.Path(broken_list) if broken else None,
        resumed=resumed,
        added=job.added,
    )


def classify_here(
    model: keras.Model, question: Question, job: Job, done: Collection[int], advance: Callable[[], None]
) -> None:
    """Classifies the parts that are not done in this process, and stores them.

    Args:
        model: The model.
        question: The settings.
        job: The job, with the list of files.
        done: Numbers of the parts that are complete.
        advance: Called after each file.
    """
    rows = classified(model, question, (names for _, names in job.parts(without=done)))
    for index, names in job.parts(without=done):
        answers = []
        for row in itertools.islice(rows, len(names)):
            answers.append(row)
            advance()
        job.write(index, as_lines(answers))


def _check_engine(engine: str, workers: int | None, gpus_per_worker: float) -> None:
    one_of("engine", engine, ("local", "ray"))
    if engine == "local" and (workers is not None or gpus_per_worker):
        raise ValueError("`workers` and `gpus_per_worker` require engine='ray'; the local engine is one process.")
    if engine == "ray":
        cluster.import_ray()


def _class_names(model: keras.Model, class_names: Sequence[str] | None) -> list[str]:
    preprocessing_of(model)  # reports errors before any file is listed
    classes = scores_of(model).classes
    own = class_names_for(model, class_names, classes)
    if own is not None:
        return list(own)
    names = [name for _, name in imagenet_classes()]
    if len(names) != classes:
        raise ValueError(
            f"The model has {classes} classes of its own, not ImageNet's {len(names):,}. Pass their names as "
            "`class_names`."
        )
    return names
