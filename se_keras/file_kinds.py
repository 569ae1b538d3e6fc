"""Descriptions of files that are not what their names say: error pages, pointers without content, partial downloads."""

from __future__ import annotations

import os

_LONGEST = 512  # bytes that determine a file's kind
_LONGEST_REASON = 300

_KINDS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec",
        "a Git LFS pointer, not the file that it points to: fetch it with `git lfs pull`",
    ),
    (b"<!doctype html", "a web page: download the file itself, not the page that shows it"),
    (b"<html", "a web page: download the file itself, not the page that shows it"),
    (b"<?xml", "an XML document, as servers send instead of a file that they cannot provide"),
    (b"\x89hdf\r\n", "an HDF5 file"),
    (b"pk\x03\x04", "a zip archive"),
    (b"pk\x05\x06", "an empty zip archive"),
    (b"\x93numpy", "a NumPy array"),
    *((start, "a Python pickle") for start in (b"\x80\x02\x8a", b"\x80\x02}", b"\x80\x02c", b"\x80\x03}")),
    *((start, "a Python pickle") for start in (b"\x80\x03c", b"\x80\x04\x95", b"\x80\x05\x95")),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
)
"""The first bytes of files of other kinds, in lowercase."""


def described(path: str | os.PathLike) -> str:
    """Describes the kind of a file, as far as its content shows it.

    Args:
        path: An existing file.

    Returns:
        For example "an empty file", with a remedy if there is one; "" if the content does not show it.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(_LONGEST)
    if not head:
        return "an empty file: write or download it again"
    if not head.strip(b"\0"):
        return "a file of zeros, as after a power failure: write or download it again"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((kind for signature, kind in _KINDS if start.startswith(signature)), "")


def damaged(
    path: str | os.PathLike, expected: str, error: object = "", *, containers: tuple[str, ...] = ()
) -> ValueError:
    """Returns the error for a file that cannot be read as the expected kind.

    Args:
        path: The file.
        expected: The expected kind, such as "safetensors file".
        error: The error of its reader.
        containers: Results of `described` that are valid for this file, such as "a zip archive" for a `.keras` file.

    Returns:
        A one-line error, for the caller to raise.
    """
    kind = described(path)
    if kind and kind not in containers:
        return ValueError(f"{os.fspath(path)!r} is not a valid {expected}, but {kind}.")
    reason = " ".join(str(error).split())[:_LONGEST_REASON]
    detail = f" ({reason})" if reason else ""
    state = "damaged or cut short" if kind else f"damaged or not a valid {expected}"
    return ValueError(f"{os.fspath(path)!r} is {state}{detail}: write or download it again.")
