"""What a file is that is not what its name says: a download's error page, a pointer without its content, a half."""

from __future__ import annotations

import os

_LONGEST = 512  # bytes that tell a file's kind
_LONGEST_REASON = 300

_KINDS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec",
        "a Git LFS pointer, not the file that it points to: fetch it with `git lfs pull`",
    ),
    (b"<!doctype html", "a web page: download the file itself, not the page that shows it"),
    (b"<html", "a web page: download the file itself, not the page that shows it"),
    (b"<?xml", "an XML document, as servers send in place of a file that they do not give"),
    (b"\x89hdf\r\n", "an HDF5 file"),
    (b"pk\x03\x04", "a zip archive"),
    (b"pk\x05\x06", "an empty zip archive"),
    (b"\x93numpy", "an array of NumPy"),
    *((start, "a pickle of Python") for start in (b"\x80\x02\x8a", b"\x80\x02}", b"\x80\x02c", b"\x80\x03}")),
    *((start, "a pickle of Python") for start in (b"\x80\x03c", b"\x80\x04\x95", b"\x80\x05\x95")),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
)
"""How files of other kinds begin, in lower case."""


def described(path: str | os.PathLike) -> str:
    """Says what a file is, where its content tells.

    Args:
        path: An existing file.

    Returns:
        E.g. "an empty file", with a remedy if there is one; "" if the content does not tell.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(_LONGEST)
    if not head:
        return "an empty file: write or download it again"
    if not head.strip(b"\0"):
        return "a file of zeros, as a power cut leaves: write or download it again"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((kind for signature, kind in _KINDS if start.startswith(signature)), "")


def damaged(
    path: str | os.PathLike, expected: str, error: object = "", *, containers: tuple[str, ...] = ()
) -> ValueError:
    """The error for a file that cannot be read as what it should be.

    Args:
        path: The file.
        expected: What it should be, e.g. "safetensors file".
        error: What its reader said.
        containers: What such a file may be to `described`, e.g. "a zip archive" for a `.keras` file.

    Returns:
        An error in one line, for the caller to raise.
    """
    kind = described(path)
    if kind and kind not in containers:
        return ValueError(f"{os.fspath(path)!r} is no {expected}, but {kind}.")
    reason = " ".join(str(error).split())[:_LONGEST_REASON]
    detail = f" ({reason})" if reason else ""
    state = "damaged or cut short" if kind else f"damaged or no {expected}"
    return ValueError(f"{os.fspath(path)!r} is {state}{detail}: write or download it again.")
