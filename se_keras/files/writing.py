"""Replaces files and folders, as the package's docstring promises."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence

from se_keras.files.kinds import Kind, kind_of, working_folder
from se_keras.files.locks import locked, refuse_no_folder
from se_keras.files.moves import exchange, move_if_free, signature, sync, sync_names

Targets = Mapping[str | os.PathLike, Kind]
_LOCK, _JOURNAL = "lock", "placing.json"
_OWN = {_LOCK, _JOURNAL, f"{_JOURNAL}.partial", "new", "old"}
_DISK_IS_FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, overwrite: bool, kind: Kind | None = None) -> Iterator[pathlib.Path]:
    """Yields a temporary path, and moves what was written there to the final one if the block ends without an error.

    Args:
        path: The final path of a file or folder. A link is followed.
        overwrite: Whether an output of the same kind that exists there may be replaced.
        kind: The kind of output. None: the kind that the suffix stands for.

    Yields:
        The path to write to, of the same name; nothing exists there yet.

    Raises:
        FileExistsError: Something exists at `path`, and `overwrite` is False or it is of another kind.
        InUseError: Another process is writing there.
        OSError: The disk is full, for example; the message names `path`, which is unchanged.
    """
    with replacing_together({path: kind or kind_of(path)}, overwrite=overwrite) as (temporary,):
        yield temporary
        if not os.path.lexists(temporary):
            raise FileNotFoundError(f"Nothing was written for {os.fspath(path)!r}.")


@contextlib.contextmanager
def replacing_together(targets: Targets, *, overwrite: bool) -> Iterator[list[pathlib.Path]]:
    """Replaces several files or folders as `replacing` does, all of them or none.

    If this process dies between two of them, the next one that writes the same targets finishes the work.

    Args:
        targets: The final paths and the kind of each; messages name the first.
        overwrite: As in `replacing`.

    Yields:
        The paths to write to, in the same order. A target for which nothing is written stays as it is.

    Raises:
        FileExistsError: As in `replacing`; none of the targets has changed.
        InUseError: As in `replacing`.
        OSError: As in `replacing`.
    """
    places = _places(targets)
    with _claimed(places):
        _check(places, overwrite)
        with _failures_named(places[0].given, _full_disk):
            yield [place.temporary for place in places]
        with _failures_named(places[0].given, _any_refusal):
            _put_in_place([place for place in places if os.path.lexists(place.temporary)], overwrite)


def check_targets(targets: Targets, *, overwrite: bool) -> None:
    """Rejects targets that `replacing_together` would reject, before any work is done for them.

    Args:
        targets: As in `replacing_together`.
        overwrite: As in `replacing_together`.

    Raises:
        FileExistsError: As in `replacing_together`.
        InUseError: As in `replacing_together`.
    """
    finish_targets(targets)
    _check(_places(targets), overwrite)


def finish_targets(targets: Targets) -> None:
    """Finishes or removes what a dead process left next to targets; changes nothing else.

    Args:
        targets: As in `replacing_together`.

    Raises:
        InUseError: As in `replacing_together`.
    """
    places = _places(targets)
    if any(place.working.exists() for place in places):
        with _claimed(places):
            pass


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path for a file in a folder that the caller has locked and that holds only its own files.

    Args:
        path: The file; it is replaced when the block ends without an error.

    Yields:
        The path to write to.

    Raises:
        OSError: The disk is full, for example; the message names `path`, which is unchanged.
    """
    partial = path.with_name(f"{path.name}.partial")
    with _failures_named(path, _full_disk):
        yield partial
        sync(partial)
        partial.replace(path)
        sync_names(path.parent)


@dataclasses.dataclass(frozen=True)
class _Place:
    """A target: the path as given, the same path without links, and what is written there."""

    given: str | os.PathLike
    final: pathlib.Path
    kind: Kind

    @property
    def working(self) -> pathlib.Path:
        return working_folder(self.final)

    @property
    def temporary(self) -> pathlib.Path:
        # Writers go by the suffix, which the file that a link points to may lack.
        ending = pathlib.Path(self.given).suffix
        return self.working / "new" / (self.final.name.removesuffix(ending) + ending)

    @property
    def old(self) -> pathlib.Path:
        return self.working / "old" / self.final.name


def _places(targets: Targets) -> list[_Place]:
    places = [_Place(path, pathlib.Path(os.path.realpath(path)), kind) for path, kind in targets.items()]
    for place in places:
        for name, inside in {"working": ".", "home": os.path.expanduser("~")}.items():
            if place.final.is_dir() and pathlib.Path(os.path.realpath(inside)).is_relative_to(place.final):
                raise FileExistsError(
                    f"{os.fspath(place.given)!r} is the {name} folder or contains it, and is never replaced. "
                    "Choose another path."
                )
    return places


@contextlib.contextmanager
def _claimed(places: Sequence[_Place]) -> Iterator[None]:
    """Holds the locks of all places; first finishes what was left there, and clears everything at the end."""
    with contextlib.ExitStack() as locks:
        with _failures_named(places[0].given, _any_refusal):
            for place in sorted(places, key=lambda place: place.working):
                locks.enter_context(_working_folder(place))
            for place in places:
                _finish(place, places)
        try:
            for place in places:
                _clear(place)
                place.temporary.parent.mkdir()
            yield
        finally:
            for place in places:
                _clear(place)


@contextlib.contextmanager
def _working_folder(place: _Place) -> Iterator[None]:
    folder = place.working
    if os.path.lexists(folder) and not (folder.is_dir() and set(os.listdir(folder)) <= _OWN):
        raise FileExistsError(
            f"{os.fspath(folder)!r} is needed to write {os.fspath(place.given)!r}, but holds something else. Move it "
            "away."
        )
    try:
        with locked(folder / _LOCK, place.given):
            yield
    finally:
        with contextlib.suppress(OSError):  # it stays if another process is using it
            folder.rmdir()


def _clear(place: _Place) -> None:
    if os.path.lexists(place.old) and not os.path.lexists(place.final):
        place.old.rename(place.final)
    for name in (_JOURNAL, f"{_JOURNAL}.partial"):
        (place.working / name).unlink(missing_ok=True)
    for name in ("new", "old"):
        shutil.rmtree(place.working / name, ignore_errors=True)


def _check(places: Sequence[_Place], overwrite: bool) -> None:
    for place in places:
        refuse_no_folder(place.final, place.given)
        if os.path.lexists(place.final):
            _refuse_strangers(place, place.final)
            if not overwrite:
                raise _exists(place)


def _refuse_strangers(place: _Place, path: pathlib.Path) -> None:
    found = place.kind.obstacle(path)
    if found:
        raise FileExistsError(
            f"{os.fspath(place.given)!r} is {found}; only {place.kind.name} can be replaced there. Choose another "
            "path, or move away what is there."
        )


def _exists(place: _Place) -> FileExistsError:
    return FileExistsError(
        f"{os.fspath(place.given)!r} already exists. Pass overwrite=True to replace it; on the command line, add "
        "--overwrite."
    )


def _put_in_place(places: Sequence[_Place], overwrite: bool) -> None:
    _check(places, overwrite)
    for place in places:
        sync(place.temporary)
        _set_mode(place)
    if len(places) > 1 or any(place.kind.is_folder for place in places):
        _write_journal(places)
    with contextlib.ExitStack() as undo:
        for place in places:
            _put(place, overwrite, undo)
        undo.pop_all()
    for folder in {place.final.parent for place in places}:
        sync_names(folder)


def _set_mode(place: _Place) -> None:
    """Sets the permissions of the replaced file, else those that the process gives every new file."""
    if os.path.lexists(place.final):
        place.temporary.chmod(stat.S_IMODE(place.final.stat().st_mode))
    elif not place.kind.is_folder:
        place.temporary.chmod(place.working.stat().st_mode & 0o666)


def _put(place: _Place, overwrite: bool, undo: contextlib.ExitStack) -> None:
    temporary, final = place.temporary, place.final
    if not overwrite or not os.path.lexists(final):
        try:
            move_if_free(temporary, final)
        except FileExistsError as error:
            raise _exists(place) from error
        undo.callback(os.rename, final, temporary)
    elif exchange(temporary, final):
        undo.callback(exchange, temporary, final)
        _refuse_strangers(place, temporary)  # which may have appeared after the last check
    elif place.kind.is_folder:
        place.old.parent.mkdir(exist_ok=True)
        final.rename(place.old)
        undo.callback(os.rename, place.old, final)
        temporary.rename(final)
        undo.callback(os.rename, final, temporary)
    else:
        temporary.replace(final)


def _write_journal(places: Sequence[_Place]) -> None:
    """Records the complete outputs that are about to be put in place: if this process dies, `_finish` does the rest."""
    entries = [[os.fspath(place.final), signature(place.temporary), signature(place.final)] for place in places]
    with whole(places[0].working / _JOURNAL) as partial:
        partial.write_text(json.dumps(entries), "utf-8")


def _finish(place: _Place, claimed: Sequence[_Place]) -> None:
    try:
        entries = json.loads((place.working / _JOURNAL).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return
    by_path = {os.fspath(other.final): other for other in claimed}
    steps = [(by_path[path], new, old) for path, new, old in entries if path in by_path]
    waiting = [(p, old) for p, new, old in steps if signature(p.temporary) == new != signature(p.final)]
    is_begun = len(waiting) < len(entries) or any(old and not os.path.lexists(place.final) for place, old in waiting)
    for place, old in waiting if is_begun else ():
        if signature(place.final) in (None, old):
            with contextlib.ExitStack() as undo:
                _put(place, old is not None, undo)
                undo.pop_all()


@contextlib.contextmanager
def _failures_named(path: str | os.PathLike, reason_of: Callable[[Exception], str]) -> Iterator[None]:
    """Converts a system error into one line that names the target."""
    try:
        yield
    except Exception as error:
        reason = reason_of(error)
        if not reason:
            raise
        state = (
            "what was there is unchanged" if os.path.lexists(path) else "nothing was there before, and nothing is now"
        )
        raise OSError(f"{os.fspath(path)!r} could not be written: {reason}; {state}.") from error


def _full_disk(error: Exception) -> str:
    """Describes a full disk, which writers report with various classes; "" for any other error."""
    texts = {code: os.strerror(code) for code in _DISK_IS_FULL}
    found = texts.get(getattr(error, "errno", None) or 0) or next((t for t in texts.values() if t in str(error)), "")
    return f"{found}. Make room and try again" if found else ""


def _any_refusal(error: Exception) -> str:
    is_refused = isinstance(error, OSError) and not isinstance(error, FileExistsError) and bool(error.errno)
    return _full_disk(error) or (os.strerror(error.errno) if is_refused else "")  # type: ignore[attr-defined]
