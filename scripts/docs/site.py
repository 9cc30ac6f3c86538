"""What mkdocs needs to make one site of pages that lie in several folders. See mkdocs.yml.

Pages are written so that their links work in the repository. Here those links are turned to the places that
the pages have on the site; a link to a file that is no page becomes its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scripts.docs.keys import page as page_of_keys

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {  # file in the repository -> page of the site
    "README.md": "index.md",
    "DATASET.md": "dataset.md",
    "pretraining.md": "pretraining.md",
    "endtask.md": "endtask.md",
    "projects/README.md": "projects.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
SOURCES = {page: source for source, page in ELSEWHERE.items()}
CODE = re.compile(r"<code>([^<\n]+)</code>")  # within a line; a block has tags or line ends in it
LONG = re.compile(r"\S{20,}")
FLAG, WHOLE = re.compile(r"(?<!\S)--?[\w-]+"), r'<span class="whole">\g<0></span>'
WIDE = re.compile(r"^(\|[^|\n]*){12,}\|$", re.MULTILINE)  # a table that needs the room of the contents
NUMBER = re.compile(r"[\d.]+ ± [\d.]+|(?<=<td>)[\d.]+e[+-]\d+(?=</td>)")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s:#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages of other folders, and those that are generated."""
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    files.append(File.generated(config, "reference/keys.md", content=page_of_keys()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between pages, as they are on the site; a page with a wide table has no table of contents."""
    here = page.file.src_uri
    if here.startswith("reference/"):
        return markdown
    folder = PurePosixPath(SOURCES.get(here, f"docs/{here}")).parent

    if WIDE.search(markdown):
        page.meta["hide"] = ["toc"]
    titles = dict(_titles(config.nav))

    def turned(match: re.Match) -> str:
        text, target, anchor = match.groups()
        path = os.path.normpath(folder / target)
        place = ELSEWHERE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if place is None and (ROOT / path).exists():
            return text if text.startswith("`") else f"`{path}`"
        if text.endswith(".md"):  # in the repository a page is called by its file
            text = titles.get(place, text)
        return f"[{text}]({place or target}{anchor or ''})"

    markdown = re.sub(r"!\[([^\]]*)\]\(docs/", r"![\1](", markdown)  # pictures of the README
    return LINK.sub(turned, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Long names in code break behind a dot, slash, underscore or equals sign. Options such as --dryrun and
    numbers such as 1e-12 do not break."""

    def with_breaks(name: re.Match) -> str:
        return re.sub(r"([./=_])(?=\w)", r"\1<wbr>", name[0])

    def laid_out(code: re.Match) -> str:
        return f"<code>{FLAG.sub(WHOLE, LONG.sub(with_breaks, code[1]))}</code>"

    return NUMBER.sub(WHOLE, CODE.sub(laid_out, html))


def _titles(nav: list) -> Iterator[tuple[str, str]]:
    """Page -> its name in the navigation."""
    for entry in nav:
        for title, page in entry.items():
            if isinstance(page, list):
                yield from _titles(page)
            else:
                yield page, title
