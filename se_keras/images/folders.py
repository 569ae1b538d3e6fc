"""The image files of a folder, and the class of each."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
OTHER_SUFFIXES = (  # of images in formats that are not read
    *(".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".svg", ".psd", ".xcf", ".tga"),
    *(".exr", ".raw", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf"),
    *(".pef", ".srw", ".3fr", ".erf", ".kdc", ".mrw", ".x3f", ".rwl", ".iiq"),
)
_VALIDATION = ("val", "validation", "valid", "test")  # in the order of preference
_PARTS = {"train", "training", *_VALIDATION, "testing"}


def is_image_name(name: str) -> bool:
    """Returns whether a file of this name counts as an image: it has the suffix of one (any case) and is visible.

    Args:
        name: The last part of a path. `._photo.jpg` on macOS, which contains no image, is hidden.

    Returns:
        True for `SUFFIXES` and `OTHER_SUFFIXES`; the code that reads files says why one of the latter has no pixels.
    """
    return name.lower().endswith((*SUFFIXES, *OTHER_SUFFIXES)) and not name.startswith(".")


def unread_format(name: str) -> str | None:
    """Returns the format that a file's name states if it is not read.

    Args:
        name: A path or its last part.

    Returns:
        Such as "HEIC" for `OTHER_SUFFIXES`; None for other names.
    """
    suffix = os.path.splitext(name)[1]
    return suffix[1:].upper() if suffix.lower() in OTHER_SUFFIXES else None


def image_files(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Finds the image files of a folder and its subfolders, one folder at a time.

    Broken links and pipes are included; the code that reads the files reports why one has no pixels.

    Args:
        folder: The folder. Names that begin with a dot, and links to folders, are skipped.

    Yields:
        Paths relative to `folder`, with "/" between the parts, always in the same order.

    Raises:
        OSError: A subfolder cannot be read.
    """
    for parent, folders, files in os.walk(os.fspath(folder), onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(filter(is_image_name, files)):
            yield pathlib.Path(os.path.relpath(os.path.join(parent, name), folder)).as_posix()


def _raise(error: OSError) -> None:
    raise error


def class_folders(folder: str | os.PathLike[str]) -> list[str]:
    """Returns the class names of a folder that has one subfolder per class.

    Args:
        folder: The folder. Its subfolders may be links. Hidden ones are ignored.

    Returns:
        Their names in sorted order, which is the order of the class indices.

    Raises:
        ValueError: A name is not UTF-8, and no file of class names could contain it.
    """
    names = [child.name for child in _folders(folder)]
    for name in names:
        if text_of(name) != name:
            raise ValueError(
                f"The name of a class folder must be UTF-8, because it names the class; received {name!r} in "
                f"{os.fspath(folder)!r}. Rename the folder."
            )
    return names


def labeled_files(folder: str | os.PathLike[str]) -> tuple[list[pathlib.Path], list[int], list[str]]:
    """Finds the images in the class folders of a folder, at any depth.

    Args:
        folder: As for `class_folders`.

    Returns:
        The files, class by class; the class index of each file; and the class names.

    Raises:
        OSError: A subfolder cannot be read.
        ValueError: As for `class_folders`, or the subfolders are parts, as in `unpaired_parts`, not classes.
    """
    parts = unpaired_parts(folder)
    if parts:
        raise ValueError(
            f"{os.fspath(folder)!r} must hold one folder per class, or folders train and val (or validation, valid, "
            f"test) with such folders; received parts without a counterpart: {', '.join(parts)}. Rename or add the "
            "missing part, or pass the folder of the part itself."
        )
    root, names = pathlib.Path(folder), class_folders(folder)
    found = [(root / name / file, label) for label, name in enumerate(names) for file in image_files(root / name)]
    return [file for file, _ in found], [label for _, label in found], names


def parts_of(path: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path] | None:
    """Returns the training and validation folders inside a folder.

    Args:
        path: The folder.

    Returns:
        `train`, and `val`, `validation`, `valid`, or `test`, in upper or lower case; None unless both exist.
    """
    found = {folder.name.lower(): folder for folder in _folders(path)} if os.path.isdir(path) else {}
    validation = next((found[name] for name in _VALIDATION if name in found), None)
    return (found["train"], validation) if "train" in found and validation else None


def unpaired_parts(path: str | os.PathLike) -> list[str]:
    """Returns the subfolders that are named like parts of a dataset, but are no pair for `parts_of`.

    Args:
        path: The folder.

    Returns:
        The names of all its subfolders; [] if one of them has another name, or if `parts_of` finds its pair.
    """
    names = [folder.name for folder in _folders(path)]
    return [] if parts_of(path) or not {name.lower() for name in names} <= _PARTS else names


def _folders(path: str | os.PathLike) -> list[pathlib.Path]:
    """Returns the visible subfolders, in the order of their names: "Train" before "train"."""
    visible = (child for child in pathlib.Path(path).iterdir() if child.name[0] != ".")
    return sorted((child for child in visible if child.is_dir()), key=lambda child: child.name)


def has_loose_images(folder: str | os.PathLike[str]) -> bool:
    """Returns whether the folder itself contains images, outside of any class.

    Args:
        folder: The folder.

    Returns:
        True or False.
    """
    return any(is_image_name(child.name) for child in pathlib.Path(folder).iterdir() if not child.is_dir())


def text_of(path: str | os.PathLike[str]) -> str:
    r"""Returns a path as text that JSON, CSV, and Parquet can store, different for every path.

    Args:
        path: A path. On Linux, its name may be any bytes, not only UTF-8.

    Returns:
        The path itself; bytes that are not UTF-8 are written as `\xff`.

    Example:

    >>> print(text_of("caf\udce9.jpg"))
    caf\xe9.jpg
    """
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
