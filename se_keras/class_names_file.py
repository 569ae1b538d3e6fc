"""Files of class names, and class names as text.

A file of class names has one name per line. Ordinary names are written as they are. A name that could not be read back
from its line is written as a JSON string, in double quotes: one that is empty, begins or ends with whitespace, contains
a line break or a control character, or is itself in double quotes.
"""

from __future__ import annotations

import codecs
import json
import os
import pathlib
import re
from collections.abc import Iterable

from se_keras.class_names import check_class_names
from se_keras.files import replacing

NAMES_FILE = "labels.txt"
_MARKS = {  # longer marks first, because that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_class_names(path: str | os.PathLike) -> list[str]:
    """Reads a file of class names, in the order of the network's outputs.

    Args:
        path: A text file with one name per line, in UTF-8 (with or without a byte-order mark),
            or in UTF-16 or UTF-32 with one; with any line endings. Whitespace around a name and blank
            lines at the end are ignored. A line that is a JSON string stands for that string.

    Returns:
        The names.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file has another encoding, a blank line between names, a repeated name, or no name.
    """
    source = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file of class names at {source!r}.")
    names = class_names_in(pathlib.Path(path).read_bytes(), source)
    if not names:
        raise ValueError(f"{source!r} must name at least one class, one per line; it is empty.")
    return list(check_class_names(names, len(names), what=f"the names in {source!r}"))


def class_names_in(content: bytes, source: str) -> list[str]:
    """Returns the names in the content of a file, including repeated ones.

    Args:
        content: The bytes of the file, as described for `read_class_names`.
        source: Name of the file in messages.

    Returns:
        The names, possibly none.

    Raises:
        ValueError: The content has another encoding, or a blank line between names.
    """
    lines = re.split(r"\r\n|\r|\n", _text(content, source).rstrip())
    if lines == [""]:
        return []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(
                f"Each line of {source!r} must name a class; line {number} is blank. Remove the line, or write "
                '"" in it for a class without a name.'
            )
    return [_from_line(line) for line in lines]


def class_names_text(names: Iterable[str]) -> str:
    """Returns the text from which `read_class_names` reads these names.

    Args:
        names: The names.

    Returns:
        One line per name.
    """
    return "".join(f"{_as_line(name)}\n" for name in names)


def write_class_names(path: str | os.PathLike, names: Iterable[str]) -> None:
    """Writes a file of class names in UTF-8, for `read_class_names`.

    Args:
        path: The file. An existing text file is replaced.
        names: The names.

    Raises:
        FileExistsError: The path exists and is not a text file.
    """
    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(class_names_text(names).encode())


def _text(content: bytes, source: str) -> str:
    encoding = next((encoding for mark, encoding in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
        place = f"line {text[: text.index(chr(0))].count(chr(10)) + 1}" if "\0" in text else ""
    except UnicodeDecodeError as error:
        place = f"byte {error.start}"
    if place:
        raise ValueError(
            f"A file of class names must be UTF-8, or UTF-16 or UTF-32 with a byte-order mark; {source!r} is not, at "
            f"{place}. Save it as UTF-8."
        )
    return text


def _from_line(line: str) -> str:
    line = line.strip()
    try:
        name = json.loads(line) if line.startswith('"') else line
    except json.JSONDecodeError:
        return line
    return name if isinstance(name, str) else line


def _as_line(name: str) -> str:
    is_plain = name.splitlines() == [name] and not re.search(r"[\0-\x1f\x7f-\x9f\ud800-\udfff\ufeff]", name)
    return name if is_plain and _from_line(name) == name else json.dumps(name)


def caption(name: str) -> str:
    """Returns a class name as text that matplotlib shows unchanged: on one line, without math, and visible in a legend.

    Args:
        name: The name.

    Returns:
        The text for a figure.
    """
    line = json.dumps(name) if name.startswith("_") else _as_line(name)
    return line.replace("$", r"\$")
