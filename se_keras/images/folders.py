"""Which files of a folder are images, and which class each belongs to."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image: one of `SUFFIXES` in either case, and not hidden.

    Args:
        name: The last part of a path. macOS' `._photo.jpg`, which holds no image, is hidden.

    Returns:
        True or False.
    """
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def image_files(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Finds the image files of a folder and its subfolders, those of one folder at a time.

    A link that leads nowhere and a pipe are listed, so that whoever reads the files can say why one has no pixels.

    Args:
        folder: Where to look. Names that begin with a dot are left out, and so are links to folders.

    Yields:
        Paths relative to `folder` with "/" between the parts, in an order that is always the same.

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
    """The names of the classes in a folder that has one subfolder per class.

    Args:
        folder: Where the subfolders lie; they may be links. Hidden ones are none.

    Returns:
        Their names in sorted order, which is the order of the class indices.

    Raises:
        ValueError: A name is not UTF-8: no file of class names could hold it.
    """
    names = sorted(child.name for child in pathlib.Path(folder).iterdir() if child.is_dir() and child.name[0] != ".")
    for name in names:
        if text_of(name) != name:
            raise ValueError(
                f"The name of a class folder must be UTF-8, because it names the class; received {name!r} in "
                f"{os.fspath(folder)!r}. Rename the folder."
            )
    return names


def labelled_files(folder: str | os.PathLike[str]) -> tuple[list[pathlib.Path], list[int], list[str]]:
    """The images in the class folders of a folder, at any depth.

    Args:
        folder: As of `class_folders`.

    Returns:
        The files class by class, the class index of each, and the names of the classes.

    Raises:
        OSError: A subfolder cannot be read.
        ValueError: As of `class_folders`.
    """
    root, names = pathlib.Path(folder), class_folders(folder)
    found = [(root / name / file, label) for label, name in enumerate(names) for file in image_files(root / name)]
    return [file for file, _ in found], [label for _, label in found], names


def parts_of(path: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path] | None:
    """The folders inside a folder to train and to validate on.

    Args:
        path: The folder.

    Returns:
        `train`, and `val`, `validation` or `test`; None where it has not both.
    """
    folder = pathlib.Path(path)
    validation = next((folder / name for name in ("val", "validation", "test") if (folder / name).is_dir()), None)
    return (folder / "train", validation) if (folder / "train").is_dir() and validation else None


def has_loose_images(folder: str | os.PathLike[str]) -> bool:
    """Whether images lie in the folder itself, outside of any class.

    Args:
        folder: The folder.

    Returns:
        True or False.
    """
    return any(is_image_name(child.name) for child in pathlib.Path(folder).iterdir() if not child.is_dir())


def text_of(path: str | os.PathLike[str]) -> str:
    r"""A path as text that JSON, CSV and Parquet can hold, and no two paths share.

    Args:
        path: A path. On Linux its name may be any bytes, which need not be UTF-8.

    Returns:
        The path itself; bytes that are not UTF-8 are written `\xff`.

    Example:

    >>> print(text_of("caf\udce9.jpg"))
    caf\xe9.jpg
    """
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
