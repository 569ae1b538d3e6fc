"""The folder of an unfinished prediction: its settings, its files, and the parts that are done.

It is next to the output and contains:

- `manifest.json`: the settings and the digest of the list of files; written after the list, removed second to last;
- `files.jsonl`: the names of the images, one JSON string per line, in the order of the output;
- `part-00000000.jsonl` and so on: the results for `part_size` files each: a line with their digest, then one JSON
  object per file;
- `result.json`: the output that was made from it; written before the output is moved to its path, removed last;
- `lock`: held by the working process; the system frees it however that process ends.

Every file is on disk before it gets its name. A part that is missing, truncated, or changed is computed again, and
each row is compared with the list of files when the output is made: no file is lost, and none appears twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from se_keras.files import locked, signature, whole
from se_keras.images.folders import image_files

Part = tuple[int, list[str]]
Row = dict[str, Any]
_NAMED = 5  # files that an error names
MANIFEST, FILES, RESULT, LOCK = "manifest.json", "files.jsonl", "result.json", "lock"
_OWN_FILES = re.compile(r"(lock|(manifest\.json|files\.jsonl|result\.json|part-\d{8}\.jsonl)(\.partial)?)$")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that the results depend on; a job is resumed only with the same settings.

    Args:
        folder: Absolute path of the images.
        model: Name of the model, for messages.
        fingerprint: Digest of its layers and weights.
        class_names: Digest of the class names.
        top: Number of classes per image.
        part_size: Number of files per part.
    """

    folder: str
    model: str
    fingerprint: str
    class_names: str
    top: int
    part_size: int


@dataclasses.dataclass(frozen=True)
class Job:
    """An unfinished prediction on disk, locked by this process.

    Args:
        path: The folder of the job.
        settings: The settings.
        count: Number of files.
        added: Number of images that were added since the job started; they are left out.
    """

    path: pathlib.Path
    settings: Settings
    count: int
    added: int = 0

    def parts(self, without: Collection[int] = ()) -> Iterator[Part]:
        """Reads the file list part by part.

        Args:
            without: Numbers of parts to leave out.

        Yields:
            The number of a part and the names of its files.
        """
        with open(self.path / FILES, encoding="ascii") as lines:
            for index in itertools.count():
                part = list(itertools.islice(lines, self.settings.part_size))
                if not part:
                    return
                if index not in without:
                    yield index, [json.loads(line) for line in part]

    def done(self) -> set[int]:
        """Returns the numbers of the complete parts."""
        return {index for index in self.indices if self._is_whole(index)}

    @property
    def indices(self) -> range:
        """Returns the numbers of all parts."""
        return range(-(-self.count // self.settings.part_size))

    def files_in(self, parts: Iterable[int]) -> int:
        """Returns the number of files in these parts."""
        size = self.settings.part_size
        return sum(min(size, self.count - index * size) for index in parts)

    def write(self, index: int, rows: str) -> None:
        """Stores the results of a part.

        Args:
            index: Number of the part.
            rows: One JSON object per line, one line per file.

        Raises:
            RuntimeError: The number of rows differs from the number of files in the part.
        """
        count, expected = rows.count("\n"), self.files_in([index])
        if count != expected:
            raise RuntimeError(f"Part {index} of {os.fspath(self.path)!r} has {expected} files, but {count} results.")
        with whole(self._part(index)) as partial:
            partial.write_text(f"{_digest(rows.encode())}\n{rows}", "ascii")

    def rows(self) -> Iterator[Row]:
        """Reads the results of all files, in order.

        Yields:
            One row per file.

        Raises:
            ValueError: A row is missing or belongs to another file; the message names the part.
        """
        for index, names in self.parts():
            rows = self._rows_of(index)
            if [row.get("file") for row in rows] != names:
                raise ValueError(
                    f"{os.fspath(self._part(index))!r} is damaged. Remove it, and run the same call again."
                )
            yield from rows

    def note_result(self, output: pathlib.Path, classified: int, broken: int) -> None:
        """Records the output that is about to be moved to its path, in case the process ends at that moment.

        Args:
            output: The complete table, under its temporary name.
            classified: Number of classified files.
            broken: Number of broken files.
        """
        with whole(self.path / RESULT) as partial:
            partial.write_text(json.dumps([signature(output), classified, broken]), "ascii")

    def remove(self) -> None:
        """Deletes everything but the lock; the result goes last, to record that the output exists."""
        last = {MANIFEST: 1, RESULT: 2}
        for name in sorted(set(os.listdir(self.path)) - {LOCK}, key=lambda name: last.get(name, 0)):
            (self.path / name).unlink()

    def _part(self, index: int) -> pathlib.Path:
        return self.path / f"part-{index:08d}.jsonl"

    def _is_whole(self, index: int) -> bool:
        try:
            digest, _, rows = self._part(index).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return False
        return digest.decode("ascii", "replace") == _digest(rows) and rows.count(b"\n") == self.files_in([index])

    def _rows_of(self, index: int) -> list[Row]:
        try:
            lines = self._part(index).read_text("ascii").splitlines()[1:]
            return [dict(json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError):
            return []


def result_of(path: pathlib.Path, output: pathlib.Path) -> tuple[int, int] | None:
    """Returns the result of a job that was interrupted after it had made its output.

    Args:
        path: The folder of the job; it need not exist.
        output: The table.

    Returns:
        The number of classified and of broken files; None if the output does not belong to this job.
    """
    try:
        made, classified, broken = json.loads((path / RESULT).read_text("ascii"))
    except (OSError, ValueError, TypeError):
        return None
    return (classified, broken) if made == signature(os.path.realpath(output)) else None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def opened(path: pathlib.Path, settings: Settings, check: Callable[[], None]) -> Iterator[Job]:
    """Starts a job, or resumes it where it was stopped.

    Args:
        path: The folder of the job; created if it is missing.
        settings: The settings.
        check: Raises an error if the output may not be written. It is called once the job is locked: until then
            another process may have written that output.

    Yields:
        The job, locked against other processes.

    Raises:
        ValueError: There is no image in the folder, the job was started with other settings or
            other files (the message lists the differences), or its manifest or list of files is damaged.
        FileExistsError: `path` has other content, or `check` raised it.
        InUseError: Another process is working on the job.
    """
    if os.path.lexists(path) and not (path.is_dir() and all(map(_OWN_FILES.match, os.listdir(path)))):
        raise FileExistsError(
            f"{os.fspath(path)!r} is needed for the unfinished work, but has other content. "
            "Move it away, or choose another output."
        )
    try:
        with locked(path / LOCK, path):
            check()
            yield (_resumed if (path / MANIFEST).exists() else _begun)(path, settings)
    finally:
        with contextlib.suppress(OSError):  # a folder that has content remains
            path.rmdir()


def _begun(path: pathlib.Path, settings: Settings) -> Job:
    digest, count = _list_files(path, settings.folder)
    if count == 0:
        (path / FILES).unlink()
        raise ValueError(f"The folder {settings.folder!r} has no image files.")
    with whole(path / MANIFEST) as partial:
        content = {**dataclasses.asdict(settings), "files": count, "files_sha256": digest}
        partial.write_text(json.dumps(content, indent=2), "ascii")
    return Job(path, settings, count)


def _list_files(path: pathlib.Path, folder: str) -> tuple[str, int]:
    """Writes the list of the images of a folder; returns its digest and their number."""
    digest, count = hashlib.sha256(), 0
    with whole(path / FILES) as partial, open(partial, "w", encoding="ascii") as stream:
        for name in image_files(folder):
            line = json.dumps(name) + "\n"
            digest.update(line.encode())
            stream.write(line)
            count += 1
    return digest.hexdigest(), count


def _resumed(path: pathlib.Path, settings: Settings) -> Job:
    manifest = _manifest(path)
    differences = [
        f"  {name}: {_short(manifest.get(name))} then, {_short(value)} now"
        for name, value in dataclasses.asdict(settings).items()
        if manifest.get(name) != value
    ]
    added: set[str] = set()
    if manifest["folder"] == settings.folder:
        gone, added = _changes(path, settings.folder, manifest["files_sha256"])
        if gone:
            differences.append(f"  files: {len(gone):,} of {manifest['files']:,} are gone: {_some(gone)}")
    if differences:
        raise ValueError(
            f"The work in {os.fspath(path)!r} was started with other settings:\n"
            + "\n".join(differences)
            + "\nResume with the same settings, or remove that folder to start again."
        )
    return Job(path, settings, manifest["files"], len(added))


def _manifest(path: pathlib.Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        kinds = {"folder": str, "files": int, "files_sha256": str}
        if not all(isinstance(manifest[name], kind) for name, kind in kinds.items()):
            raise TypeError(f"{', '.join(kinds)} are required")
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, MANIFEST) from error
    return manifest


def _damaged(path: pathlib.Path, name: str) -> ValueError:
    return ValueError(f"{os.fspath(path / name)!r} is damaged. Remove the folder {os.fspath(path)!r} to start again.")


def _changes(path: pathlib.Path, folder: str, files_sha256: str) -> tuple[set[str], set[str]]:
    """Returns the files removed and added since a job started; checks its list of files, and rewrites it if needed."""
    digest = hashlib.sha256()
    for name in image_files(folder):
        digest.update((json.dumps(name) + "\n").encode())
    is_same = digest.hexdigest() == files_sha256
    if not _is_listed(path, files_sha256) and (not is_same or _list_files(path, folder)[0] != files_sha256):
        raise _damaged(path, FILES)
    if is_same:
        return set(), set()
    with open(path / FILES, encoding="ascii") as lines:
        before = set(map(json.loads, lines))
    now = set(image_files(folder))
    return before - now, now - before


def _is_listed(path: pathlib.Path, files_sha256: str) -> bool:
    digest = hashlib.sha256()
    try:
        with open(path / FILES, "rb") as lines:
            for line in lines:
                digest.update(line)
    except FileNotFoundError:
        return False
    return digest.hexdigest() == files_sha256


def _short(value: Any) -> str:
    is_digest = isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value)
    return f"{value[:12]}..." if is_digest else repr(value)


def _some(names: set[str]) -> str:
    shown = ", ".join(map(repr, sorted(names)[:_NAMED]))
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED:,} more"
