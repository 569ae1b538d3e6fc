"""Fits docstrings to the API pages: doctests as code, no texts of modules, no special methods."""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", re.MULTILINE)


class ApiPages(griffe.Extension):
    """What Markdown and the pages' own introductions ask of docstrings."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Changes the package itself."""
        pkg.docstring = None

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes one object inside it."""
        if obj.is_module or obj.name.startswith("_"):
            obj.docstring = None  # pages introduce modules themselves, and leave out what has no text
        elif obj.docstring:
            obj.docstring.value = DOCTEST.sub(fenced, obj.docstring.value)


def fenced(doctest: re.Match[str]) -> str:
    """Returns a doctest as a block of code: Markdown would read `>>>` as three quotations."""
    margin = doctest[1]
    return f"{margin}```pycon\n{doctest[0]}\n{margin}```"
