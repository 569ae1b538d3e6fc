"""Merging of the parts of a finished job into one table and a list of the files that could not be read."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from se_keras.errors import missing_package
from se_keras.files import Kind, check_targets, kind_of, replacing_together, table_of
from se_keras.images.folders import text_of
from se_keras.prediction.job import Job, Row, result_of

_BROKEN_COLUMNS = ("file", "error")
_BROKEN = table_of(*_BROKEN_COLUMNS)
ROWS_AT_ONCE = 16_384  # one row group of a .parquet file


@dataclasses.dataclass
class _Tally:
    classified: int = 0
    broken: int = 0


def output_targets(path: pathlib.Path) -> dict[str | os.PathLike, Kind]:
    """Returns the files that are written at the end, for `files.check_targets`.

    Args:
        path: Path of the table.

    Returns:
        The table and the list of broken files, with the kind of each.

    Raises:
        ValueError: The suffix is neither .parquet nor .csv.
        ImportError: pyarrow is needed and not installed.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"The output must be a .parquet or .csv file; received {os.fspath(path)!r}.")
    if path.suffix == ".parquet":
        _import_pyarrow()
        return {path: kind_of(path), path.with_name(f"{path.name}.broken.csv"): _BROKEN}
    return {path: table_of(*columns(1)), path.with_name(f"{path.stem}.broken.csv"): _BROKEN}


def check_output(path: str | os.PathLike, *, overwrite: bool) -> None:
    """Checks in advance whether an output can be written.

    Args:
        path: Path of the table.
        overwrite: Whether to replace an earlier table and its list of broken files. The table of a job that was
            interrupted after it had written it is no obstacle.

    Raises:
        ValueError: The suffix is neither .parquet nor .csv.
        FileExistsError: A file exists that must not be replaced.
        ImportError: pyarrow is needed and not installed.
    """
    path = pathlib.Path(path)
    targets = output_targets(path)
    is_made = result_of(job_folder(path), path) is not None
    check_targets(targets, overwrite=overwrite or is_made)


def job_folder(output: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the unfinished work for an output."""
    return output.with_name(f"{output.name}.parts")


def merge(job: Job, output: pathlib.Path, *, overwrite: bool) -> tuple[int, int]:
    """Writes the predictions of a job as one table, and the broken files as another.

    Args:
        job: A job whose parts are all done.
        output: The .parquet or .csv file.
        overwrite: Whether to replace earlier tables.

    Returns:
        The number of classified and of broken files. The second table is written only if there are broken files or an
        earlier list.

    Raises:
        FileExistsError: A file exists that must not be replaced.
        ValueError: The parts do not have one row for each file of the job.
    """
    targets = output_targets(output)
    tally = _Tally()
    has_list = os.path.lexists(list(targets)[1])
    with replacing_together(targets, overwrite=overwrite) as (table, broken):
        with open(broken, "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(_BROKEN_COLUMNS)
            rows = _answered(job.rows(), writer, tally)
            if output.suffix == ".csv":
                _write_csv(rows, table, job.settings.top)
            else:
                _write_parquet(rows, table, job)
        if tally.classified + tally.broken != job.count:
            raise ValueError(
                f"{os.fspath(job.path)!r} has results for {tally.classified + tally.broken:,} of {job.count:,} files. "
                "Remove that folder to start again."
            )
        if not tally.broken and not has_list:
            broken.unlink()
        job.note_result(table, tally.classified, tally.broken)
    return tally.classified, tally.broken


def columns(top: int) -> list[str]:
    """Returns the names of the columns: the file, then the id, label, and probability of each rank."""
    return ["file", *(f"{what}_{rank}" for rank in range(1, top + 1) for what in ("id", "label", "probability"))]


def _answered(rows: Iterable[Row], broken: Any, tally: _Tally) -> Iterator[list[Any]]:
    for row in rows:
        name = text_of(row["file"])
        if "error" in row:
            tally.broken += 1
            broken.writerow([name, row["error"].encode("utf-8", "replace").decode()])
        else:
            tally.classified += 1
            yield [name, *itertools.chain.from_iterable(row["predictions"])]


def _write_csv(rows: Iterable[list[Any]], path: pathlib.Path, top: int) -> None:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns(top))
        writer.writerows([f"{value:.7g}" if isinstance(value, float) else value for value in row] for row in rows)


def _write_parquet(rows: Iterator[list[Any]], path: pathlib.Path, job: Job) -> None:
    pyarrow, parquet = _import_pyarrow()
    names = columns(job.settings.top)
    kinds = [pyarrow.float32() if name.startswith("probability") else pyarrow.string() for name in names]
    origin = {"model": job.settings.model, "model_fingerprint": job.settings.fingerprint}
    schema = pyarrow.schema(zip(names, kinds, strict=True), metadata=origin)
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(rows, ROWS_AT_ONCE)):
            writer.write_batch(pyarrow.record_batch([list(column) for column in zip(*group, strict=True)], schema))


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_package("pyarrow", "parquet", "A .parquet file") from error
    return pyarrow, pyarrow.parquet
