"""The documentation fits the code: its links lead somewhere, its commands parse, its Python names what exists."""

import ast
import functools
import importlib
import inspect
import pathlib
import re
import shlex

import pytest

import se_keras
from se_keras_cli import parser

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "pretrained").rglob("*.md"))
)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


@functools.cache
def text_of(page):
    return (ROOT / page).read_text("utf-8")


def snippets(page):
    """The Python of a page, without that of other packages' programs."""
    found = [inspect.cleandoc(code) for _, language, code in FENCE.findall(text_of(page)) if language == "python"]
    return [code for code in found if "mediapipe" not in code]


SNIPPETS = [(page, code) for page in PAGES for code in snippets(page)]


def names_in(code):
    """Names that the imports of a snippet bind, with the objects of the package behind them."""
    found = {"se_keras": se_keras}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("se_keras"):
            module = __import__(node.module, fromlist=["_"])
            found |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
    return found


def resolved(node, names):
    if isinstance(node, ast.Attribute):
        owner = resolved(node.value, names)
        return None if owner is None else getattr(owner, node.attr)
    return names.get(node.id) if isinstance(node, ast.Name) else None


def test_there_are_snippets():
    assert len(SNIPPETS) >= 20


@pytest.mark.parametrize(("page", "code"), SNIPPETS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(SNIPPETS)])
def test_names_and_arguments_exist(page, code):
    names = {name: value for other in snippets(page) for name, value in names_in(other).items()}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and not isinstance(node.value, ast.Call):
            resolved(node, names)
        if isinstance(node, ast.Call) and (called := resolved(node.func, names)) is not None:
            positional = [None for argument in node.args if not isinstance(argument, ast.Starred)]
            inspect.signature(called).bind(*positional, **{keyword.arg: None for keyword in node.keywords})


def commands(page):
    """The `se-keras` command lines of a page, in blocks of code and in tables."""
    text = text_of(page).replace("\\\n", " ")
    lines = re.findall(r"^ {4,}(?:.*?[ =]\w+ )?se-keras (.*?)(?: {2,}#.*)?$", text, re.MULTILINE)
    return lines + re.findall(r"^\|.*`se-keras ([^`]+ [^`]+)` \|", text, re.MULTILINE)


COMMANDS = sorted({(page, line) for page in PAGES for line in commands(page)})


def test_commands_are_found():
    assert len(COMMANDS) >= 40
    assert ("docs/getting-started.md", "predict photo.jpg --model se_resnet50 --top 3") in COMMANDS


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(COMMANDS)])
def test_commands_parse(page, line, capsys):
    try:
        parser().parse_args(shlex.split(line.rstrip("'").replace("$COMMON ", "")))
    except SystemExit:
        pytest.fail(f"{line}\n{capsys.readouterr().err}")


@functools.cache
def anchors(path):
    """Where a link can lead to inside a page: headings, written as GitHub and MkDocs write them."""
    text = re.sub(FENCE, "", (ROOT / path).read_text("utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for path, anchor in re.findall(r"\]\(([^)\s#:]*)(?:#([^)\s]*))?\)", re.sub(FENCE, "", text_of(page))):
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        if anchor and not anchor.startswith("se_keras."):
            assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix()), f"{path}#{anchor}"


def shown(module):
    """The names of a module that the API pages show: those that they list, or all public ones where they list none."""
    found = set()
    for page in (ROOT / "docs/api").glob("*.md"):
        for inside, options in re.findall(
            rf"^::: {re.escape(module)}([\w.]*)\n((?: .*\n)*)", page.read_text("utf-8"), re.MULTILINE
        ):
            listed = re.search(r"members: \[(.*?)\]", options)
            if inside:
                found.add(inside.rpartition(".")[2])
            else:
                found |= set(listed[1].split(", ") if listed else names_apart_from_modules(module))
    return found


def names_apart_from_modules(name):
    """The public names of a package; mkdocstrings takes one that a module bears, too, for the module."""
    folder = ROOT / name.replace(".", "/")
    return {public for public in importlib.import_module(name).__all__ if not (folder / f"{public}.py").exists()}


@pytest.mark.parametrize("part", ["analysis", "export", "hub", "layers", "prediction", "surgery", "training"])
def test_api_pages_show_the_public_names_of_every_part(part):
    assert shown(f"se_keras.{part}") >= set(importlib.import_module(f"se_keras.{part}").__all__)


def test_api_pages_show_the_public_names_of_the_package():
    builders = set(re.findall(r"`([A-Z]\w+)`", text_of("docs/api/networks.md")))
    parts = {name for part in ("layers", "surgery") for name in shown(f"se_keras.{part}")}
    assert set(se_keras.__all__) <= shown("se_keras") | builders | parts


def test_builders_table_lists_every_argument():
    rows = re.findall(r"^\| `(\w+)` \|", text_of("docs/api/networks.md"), re.MULTILINE)
    assert rows == list(inspect.signature(se_keras.SEResNet50).parameters)
