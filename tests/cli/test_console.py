"""What the commands print through: foreign text is shown as it is, and tables cut nothing."""

from __future__ import annotations

import ast
import pathlib

import numpy as np
import pytest

import se_keras
from se_keras.cli.console import FittingTable, PlainConsole, print_json, print_lines, progress_bars, visible

CLI = pathlib.Path(se_keras.__file__).parent / "cli"

HOSTILE = {
    "IMG[copy].jpg": "IMG[copy].jpg",
    "rich[/old]/a.jpg": "rich[/old]/a.jpg",
    "[bold red]x": "[bold red]x",
    ":smile: 12 'a'": ":smile: 12 'a'",
    "a\x1b[31mred\x1b[0m": "a\\x1b[31mred\\x1b[0m",
    "two\nlines\r\tand\x00": "two\\nlines\\r\\tand\\x00",
    "\u202egpj.exe": "\\u202egpj.exe",
    "x\udce9.png": "x\\xe9.png",
    "\ud83d": "\\ud83d",
    "naïve 犬 نمی‌خواهم": "naïve 犬 نمی‌خواهم",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_is_shown_as_it_is(text, capsys):
    assert visible(text) == HOSTILE[text]
    console = PlainConsole()
    console.print(f"{text}: done")
    table = FittingTable("name", "n")
    table.title = text
    table.add_row(text, "1")
    console.print(table)
    print_lines(text.replace("\n", ""))
    out = capsys.readouterr().out
    assert out.count(HOSTILE[text]) >= 3 if "\n" not in text else 2
    assert "\x1b" not in out


def test_a_bar_ends_its_line(capsys):
    with progress_bars() as bars:
        bars.add_task("Checking images", total=1)
    assert capsys.readouterr().err.endswith("\n")


def test_progress_takes_foreign_text(capsys):
    with progress_bars() as bars:
        bars.add_task("x[/old]", total=1)
    assert "Traceback" not in capsys.readouterr().err


def test_output_that_cannot_hold_a_character_shows_its_number(monkeypatch, tmp_path):
    with open(tmp_path / "out", "w", encoding="ascii") as file:
        console = PlainConsole()
        console.file = file
        table = FittingTable("name")
        table.add_row("naïve")
        console.print(table)
    assert "na\\xefve" in (tmp_path / "out").read_text("ascii")


def test_json_holds_what_is_no_text(capsys):
    print_json({"name": "x\udce9"})
    assert capsys.readouterr().out == '{\n  "name": "x\\udce9"\n}\n'


# Tables.


def table_of(rng):
    """A table as the commands print them: names of any length, then numbers."""
    headings = ["model name", "kind"][: rng.integers(1, 3)]
    numbers = ["median ms", "top-1", "parameters", "same answer"][: rng.integers(1, 5)]
    table = FittingTable(*headings, *numbers, optional=["kind"])
    for column in table.columns[len(headings) :]:
        column.justify = "right"
    for _ in range(3):
        names = ["/".join(["folder"] * rng.integers(1, 12)) + ".jpg" for _ in headings]
        table.add_row(*names, *(f"{rng.integers(10**9):,}" for _ in numbers))
    return table, headings, numbers


@pytest.mark.parametrize("columns", [80, 60, 30, None])
def test_no_number_name_or_heading_is_cut(columns, monkeypatch, capsys, rng):
    monkeypatch.setenv("COLUMNS", str(columns) if columns else "")
    for _ in range(20):
        table, headings, numbers = table_of(rng)
        cells = {column.heading: column.cells for column in table.columns}
        PlainConsole().print(table)
        out = capsys.readouterr().out
        for number in numbers:
            assert all(cell in out for cell in cells[number])
            assert number in out or all(word in out for word in number.split())
        assert "…" not in out
        is_table = len(out.splitlines()) > 1 and set(out.splitlines()[1].strip()) <= set("─ ")
        if is_table and columns:
            assert max(map(len, out.splitlines())) <= columns
        if not is_table:  # names are whole, for the terminal to break
            assert columns
            assert all(name in out for name in cells[headings[0]])


@pytest.mark.parametrize("columns", [80, 60])
def test_a_wide_table_becomes_records(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    table = FittingTable("name", *(f"number{i}" for i in range(12)))
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("x" * 40, *(str(10**9 + i) for i in range(12)))
    PlainConsole().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "x" * 40
    assert lines[1:] == [f"  number{i}: {10**9 + i}" for i in range(12)]


def test_optional_columns_go_first(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    table = FittingTable("name", "title", "number", optional=["title"])
    table.add_row("n" * 25, "t" * 25, "1")
    PlainConsole().print(table)
    out = capsys.readouterr().out
    assert "title" not in out
    assert "number" in out.splitlines()[0]


def test_a_column_without_content_is_left_out(capsys):
    table = FittingTable("name", "reason", "number")
    table.add_row("a", "", "1")
    PlainConsole().print(table)
    assert capsys.readouterr().out.splitlines()[0].split() == ["name", "number"]


def test_piped_output_has_one_record_per_line(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    table = FittingTable("name", "text")
    table.add_row("n" * 300, "some words " * 30)
    PlainConsole().print(table)
    assert len(capsys.readouterr().out.splitlines()) == 3


# The rule: nothing is printed but through console.py.


def prints_elsewhere(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"line {node.lineno}: print() does not show control characters; take console.print"
        elif isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr", "from_markup", "status"):
            yield f"line {node.lineno}: .{node.attr} goes past console.py"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
            if {alias.name for alias in node.names} - {"Progress"}:
                yield f"line {node.lineno}: {node.module} belongs into console.py"
        elif isinstance(node, ast.keyword) and node.arg in ("markup", "emoji"):
            yield f"line {node.value.lineno}: {node.arg}= changes what text means"


@pytest.mark.parametrize("file", sorted(path.name for path in CLI.glob("*.py") if path.name != "console.py"))
def test_commands_print_through_the_console(file):
    assert list(prints_elsewhere(ast.parse((CLI / file).read_text("utf-8")))) == []


def test_what_goes_past_the_console_is_seen():
    for line in (
        "print(f'{path}')",
        "sys.stderr.write(path)",
        "from rich.table import Table",
        "Text.from_markup(path)",
        "progress_console.status(f'{path}')",
        "console.print(path, markup=True)",
    ):
        assert list(prints_elsewhere(ast.parse(line))), line
    assert np.all([not list(prints_elsewhere(ast.parse("console.print(f'{path}')")))])
