"""Takes what the pages link to outside `docs/` into the site, so that one link works on the site and in the repository.

A page of `docs/` keeps its place on the site; every other file of the repository keeps its path. Links are rewritten
from one to the other, and the files they name are added to the site: pictures, sources, other Markdown pages. A link to
a folder leads to its README; a folder without one cannot be shown, and its link becomes plain text.
"""

from __future__ import annotations

import pathlib
import posixpath
import re
from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parents[2]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "pretrained/README.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files that pages link to, and those that they link to in turn."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()] + list(PAGES)
    seen = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if not path.startswith("docs/"):
            files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            waiting += linked_files(path)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Rewrites the links of a page from places in the repository to places on the site."""
    here = repository_path(page.file.src_uri)
    folder = posixpath.dirname(page.file.src_uri) or "."

    def rewritten(link: re.Match[str]) -> str:
        picture, text, path, anchor = link.groups(default="")
        target = target_of(here, path)
        if target is None:
            return text if (ROOT / posixpath.dirname(here) / path).is_dir() else link[0]
        return f"{picture}[{text}]({posixpath.relpath(site_path(target), folder)}{anchor})"

    return LINK.sub(rewritten, markdown)


def linked_files(path: str) -> Iterator[str]:
    """Yields the files of the repository that a Markdown file links to."""
    for link in LINK.finditer((ROOT / path).read_text("utf-8")):
        target = target_of(path, link[3])
        if target is not None:
            yield target


def target_of(path: str, link: str) -> str | None:
    """Returns the file behind a link, a folder's README for a folder; None where there is no such file."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    if (ROOT / target).is_dir():
        target = posixpath.join(target, "README.md")
    return target if (ROOT / target).is_file() else None


def site_path(path: str) -> str:
    return path.removeprefix("docs/")


def repository_path(source: str) -> str:
    return f"docs/{source}" if (ROOT / "docs" / source).is_file() else source
