"""The consoles that commands print to: external names appear verbatim, tables fit, and closed pipes do no harm."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

UNBOUNDED = 100_000
"""Columns of an output that is not a terminal: its reader can take lines of any length."""

_GAP = 2  # between two columns of a table
_JOINERS = "\u200c\u200d"  # invisible as well, but part of how Persian, Hindi, and emoji are written


def visible(text: str) -> str:
    r"""Escapes what a terminal would obey or hide: "\x1b", "\n", bidirectional controls, bytes that are not UTF-8.

    Args:
        text: Any text, for example with a file name in it.

    Returns:
        One line that any terminal shows verbatim.
    """
    return "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python represents a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS
    return character.encode("unicode_escape").decode() if hidden else character


class PlainConsole(Console):
    """A console that prints plain text: no markup, no emoji codes, no control characters.

    Args:
        stderr: Whether it prints to standard error.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Renders a text verbatim; everything printed and every cell of a table passes through here."""
        return super().render_str(self.shown(text), **options)

    def shown(self, text: str) -> str:
        """Returns a text as it is shown: made `visible`, with escapes for characters that the output cannot encode."""
        encoding = self.encoding or "utf-8"
        return visible(text).encode(encoding, "backslashreplace").decode(encoding)

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints lines of text unbroken, for the terminal to wrap, and tables as wide as the console."""
        for value in objects or ("",):  # without a terminal, rich ends a bar with an empty line
            if isinstance(value, FittingTable):
                value.print_on(self)
            else:
                super().print(value, **{"soft_wrap": isinstance(value, str), **options})

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        """Returns columns and lines: those of COLUMNS, else the terminal's, else as many as a line needs."""
        height = super().size.height
        if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns):
            return ConsoleDimensions(int(columns), height)
        return super().size if self.is_terminal else ConsoleDimensions(UNBOUNDED, height)

    def on_broken_pipe(self) -> None:
        """Continues silently when the reader is gone: a command does more than print."""
        self.quiet = True
        mute(sys.stderr if self.stderr else sys.stdout)


def mute(stream: Any) -> None:
    """Redirects a stream that nobody reads to the null device, so that later writes succeed.

    Args:
        stream: Standard output or standard error.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


console = PlainConsole()
progress_console = PlainConsole(stderr=True)


def print_json(value: Any, **options: Any) -> None:
    """Prints a value as JSON, in ASCII.

    Args:
        value: Any value that `json` can write.
        **options: For `json.dumps`.
    """
    with _if_read():
        print(json.dumps(value, indent=2, **options))


def print_lines(text: str) -> None:
    """Prints text of this package that has several lines.

    Args:
        text: The lines; control characters inside them are shown.
    """
    for line in text.split("\n"):
        console.print(line)


@contextlib.contextmanager
def _if_read() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        console.on_broken_pipe()


@dataclasses.dataclass
class _Column:
    heading: str
    justify: Literal["left", "right"] = "left"
    cells: list[str] = dataclasses.field(default_factory=list)


class FittingTable:
    """A table that truncates no number, name, or heading. If it is too wide, it prints one record after another.

    A column without any content is left out.

    Args:
        *headings: Headings of the columns.
        numbers: The columns that hold numbers, which are right-aligned.
        optional: Columns to leave out first if the table is too wide, in this order.

    Attributes:
        title: A line above, or "".
    """

    LONGEST_WORD = 44
    """Columns of text may be wrapped, but not within words up to this length."""

    def __init__(self, *headings: str, numbers: slice | None = None, optional: Sequence[str] = ()) -> None:
        self.columns = [_Column(heading) for heading in headings]
        for column in self.columns[numbers or slice(0)]:
            column.justify = "right"
        self.title = ""
        self.optional = tuple(optional)
        self._sections: set[int] = set()

    def add_row(self, *cells: str) -> None:
        """Adds a row.

        Args:
            *cells: One text per column.
        """
        for column, cell in zip(self.columns, cells, strict=True):
            column.cells.append(cell)

    def add_section(self) -> None:
        """Draws a line after the last row."""
        self._sections.add(len(self.columns[0].cells) - 1)

    def print_on(self, console: PlainConsole) -> None:
        """Prints the table, or the records.

        Args:
            console: The console.
        """
        shown = [
            dataclasses.replace(column, cells=[console.shown(cell) for cell in column.cells])
            for column in self.columns
            if any(column.cells) or not column.cells
        ]
        for number in range(len(self.optional) + 1):
            columns = [column for column in shown if column.heading not in self.optional[:number]]
            widths = _widths(columns, console.width)
            if widths is not None:
                console.print(self._drawn(columns, widths))
                return
        if self.title:
            console.print(self.title, style="bold")
        for text, style in _records(shown):
            console.print(text, style=style)

    def _drawn(self, columns: list[_Column], widths: list[int]) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            title=self.title or None,
            title_justify="left",
            title_style="bold",
        )
        for column, width in zip(columns, widths, strict=True):
            table.add_column(column.heading, justify=column.justify, overflow="fold", width=width)
        for number, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
            table.add_row(*cells, end_section=number in self._sections)
        return table


def _widths(columns: Sequence[_Column], available: int) -> list[int] | None:
    """Returns the columns' widths, with the widest columns of text narrowed first; None if they do not fit."""
    widths = [max(map(cell_len, [column.heading, *column.cells])) for column in columns]
    least = [_least_width(column) for column in columns]
    excess = sum(widths) + _GAP * (len(widths) - 1) - available
    for _ in range(excess):
        room, index = max((widths[index] - least[index], index) for index in range(len(widths)))
        if room <= 0:
            return None
        widths[index] -= 1
    return widths


def _least_width(column: _Column) -> int:
    heading = max(map(cell_len, column.heading.split()), default=1)
    if column.justify == "right":
        return max([heading, *map(cell_len, column.cells)])
    word = max((cell_len(word) for cell in column.cells for word in cell.split()), default=1)
    return max(heading, min(word, FittingTable.LONGEST_WORD))


def _records(columns: Sequence[_Column]) -> Iterator[tuple[str, str]]:
    """Yields the lines of one record after another, with their styles."""
    for cells in zip(*(column.cells for column in columns), strict=True):
        if cells[0]:
            yield cells[0], "bold"
        for column, cell in zip(columns[1:], cells[1:], strict=True):
            if cell:
                yield f"  {column.heading}: {cell}", ""


def progress_bars() -> Progress:
    """Returns progress bars on standard error, with counts, elapsed time, and remaining time."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=progress_console,
    )


@contextlib.contextmanager
def bar_on_stderr(title: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Shows a bar on standard error if that is a terminal; an argument for `se_keras.progress.shown_by`."""
    if not progress_console.is_terminal:
        yield lambda: None
        return
    with progress_bars() as bars:
        task = bars.add_task(title, total=total)
        yield lambda: bars.advance(task)
