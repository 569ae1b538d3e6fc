"""The folder of an unfinished prediction: what was asked, which files, and which parts of them are done.

It lies beside the output and holds

- `manifest.json`: the settings and the digest of the file list; written after the list, removed last;
- `files.jsonl`: the names of the images, one JSON string a line, in the order of the output;
- `part-00000000.jsonl` and so on: the answers for `part_size` files each, one JSON object a line;
- `lock`: held by the process at work; the system frees it however that process ends.

Every file is written under another name and renamed when it is whole, so that a process may be
killed at any moment: a part is there and complete, or not there and computed again.
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
from collections.abc import Collection, Iterable, Iterator
from typing import IO, Any

from PIL import Image

Part = tuple[int, list[str]]
Row = dict[str, Any]
_OWN_FILES = re.compile(r"(lock|(manifest\.json|files\.jsonl|merged|broken|part-\d+\.jsonl)(\.partial)?)$")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the answers depend on; a job is resumed only under the same.

    Args:
        folder: Absolute path of the images.
        model: Name of the model, for messages.
        fingerprint: Of its layers and weights.
        labels: Digest of the names of the classes.
        top: How many classes an image.
        part_size: How many files a part.
    """

    folder: str
    model: str
    fingerprint: str
    labels: str
    top: int
    part_size: int


@dataclasses.dataclass(frozen=True)
class Job:
    """An unfinished prediction on disk, of which this process has the lock.

    Args:
        path: Its folder.
        settings: What was asked.
        count: How many files there are.
        added: How many images came into the folder since the job began; they are left out.
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
        with open(self.path / "files.jsonl", encoding="ascii") as lines:
            for index in itertools.count():
                part = list(itertools.islice(lines, self.settings.part_size))
                if not part:
                    return
                if index not in without:
                    yield index, [json.loads(line) for line in part]

    def done(self) -> set[int]:
        """The numbers of the parts that are complete."""
        return {int(entry.name[5:-6]) for entry in self.path.glob("part-*.jsonl")}

    def files_in(self, parts: Iterable[int]) -> int:
        """How many files these parts hold together."""
        size = self.settings.part_size
        return sum(min(size, self.count - index * size) for index in parts)

    def write(self, index: int, rows: str) -> None:
        """Stores the answers of a part.

        Args:
            index: Number of the part.
            rows: One JSON object a line, one line a file.
        """
        with _renamed_when_whole(self._part(index)) as stream:
            stream.write(rows)

    def rows(self) -> Iterator[Row]:
        """Reads the answers of all parts in the order of the files."""
        for index in range(-(-self.count // self.settings.part_size)):
            with open(self._part(index), encoding="ascii") as lines:
                yield from map(json.loads, lines)

    def remove(self) -> None:
        """Deletes the folder."""
        _remove(self.path)

    def _part(self, index: int) -> pathlib.Path:
        return self.path / f"part-{index:08d}.jsonl"


@contextlib.contextmanager
def opened(path: pathlib.Path, settings: Settings) -> Iterator[Job]:
    """Begins a job, or resumes it where it was stopped.

    Args:
        path: The job's folder; it is created if there is none.
        settings: What is asked.

    Yields:
        The job, locked against other processes.

    Raises:
        ValueError: There is no image in the folder, or the job was begun with other settings or
            other files; the message lists the differences.
        FileExistsError: `path` holds something else.
        RuntimeError: Another process is at work on the job.
    """
    if path.exists() and not (path.is_dir() and all(_OWN_FILES.match(name) for name in os.listdir(path))):
        raise FileExistsError(f"{os.fspath(path)!r} is needed for the unfinished work, but holds something else.")
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        yield (_resumed if (path / "manifest.json").exists() else _begun)(path, settings)


def _begun(path: pathlib.Path, settings: Settings) -> Job:
    digest, count = hashlib.sha256(), 0
    with _renamed_when_whole(path / "files.jsonl") as stream:
        for name in image_files(settings.folder):
            line = json.dumps(name) + "\n"
            digest.update(line.encode())
            stream.write(line)
            count += 1
    if count == 0:
        _remove(path)
        raise ValueError(f"The folder {settings.folder!r} holds no image files.")
    with _renamed_when_whole(path / "manifest.json") as stream:
        content = {**dataclasses.asdict(settings), "files": count, "files_sha256": digest.hexdigest()}
        json.dump(content, stream, indent=2)
    return Job(path, settings, count)


def _remove(path: pathlib.Path) -> None:
    # The manifest goes after the parts: a folder without one holds no answers of another job.
    for name in sorted(os.listdir(path), key=lambda name: (name == "lock", name == "manifest.json")):
        (path / name).unlink()
    path.rmdir()


def _resumed(path: pathlib.Path, settings: Settings) -> Job:
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    differences = [
        f"  {name}: {_short(manifest.get(name))} then, {_short(value)} now"
        for name, value in dataclasses.asdict(settings).items()
        if manifest.get(name) != value
    ]
    added: set[str] = set()
    if manifest.get("folder") == settings.folder:
        gone, added = _changes(path, settings.folder, manifest["files_sha256"])
        if gone:
            differences.append(f"  files: {len(gone):,} of {manifest['files']:,} are gone: {_some(gone)}")
    if differences:
        raise ValueError(
            f"The work in {os.fspath(path)!r} was begun with other settings:\n"
            + "\n".join(differences)
            + "\nGo on with the same settings, or remove that folder to begin anew."
        )
    return Job(path, settings, manifest["files"], len(added))


def _changes(path: pathlib.Path, folder: str, files_sha256: str) -> tuple[set[str], set[str]]:
    digest = hashlib.sha256()
    for name in image_files(folder):
        digest.update((json.dumps(name) + "\n").encode())
    if digest.hexdigest() == files_sha256:
        return set(), set()
    with open(path / "files.jsonl", encoding="ascii") as lines:
        before = set(map(json.loads, lines))
    now = set(image_files(folder))
    return before - now, now - before


def _short(value: Any) -> str:
    is_digest = isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value)
    return f"{value[:12]}..." if is_digest else repr(value)


def _some(names: set[str], most: int = 5) -> str:
    shown = ", ".join(map(repr, sorted(names)[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def image_files(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Finds the image files of a folder and its subfolders, those of one folder at a time.

    Args:
        folder: Where to look. Names that begin with a dot are left out, and so are links to folders.

    Yields:
        Paths relative to `folder` with "/" between the parts, in an order that is always the same.

    Raises:
        OSError: A subfolder cannot be read.
    """
    endings = tuple(ending for ending, form in Image.registered_extensions().items() if form in Image.OPEN)
    for parent, folders, files in os.walk(os.fspath(folder), onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(endings) and not name.startswith("."):
                yield pathlib.Path(os.path.relpath(os.path.join(parent, name), folder)).as_posix()


def _raise(error: OSError) -> None:
    raise error


@contextlib.contextmanager
def _renamed_when_whole(path: pathlib.Path) -> Iterator[IO[str]]:
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "w", encoding="ascii") as stream:
        yield stream
    partial.replace(path)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    with open(path / "lock", "w") as stream:
        try:
            import fcntl
        except ImportError:  # Windows: two processes would do the work twice, but the result would be the same
            yield
            return
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"Another process is at work in {os.fspath(path)!r}. Wait until it is done.") from error
        yield
