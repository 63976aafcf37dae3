"""A hook of mkdocs: pages that stand elsewhere in the repository, and links that leave docs/.

The pages are written for a reader of the repository: they point to ``../csrc/neuron/step.h`` or to pictures
in ``../bench/results``. In the site, texts of the repository that are worth a page become one; a picture or a
file that a page points to is copied beside them. So every link leads somewhere without a network.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
# Texts that stand outside of docs/, by the page that they become.
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
    "gpu_report.md": "bench/results/gpu/report.md",
}
COPIES = "repository"
# Browsers show these; others are texts, and are shown as such.
SHOWN = {".png", ".json", ".txt"}

_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def source_of(page: str) -> str:
    """Where the text of a page stands in the repository."""
    return PAGES.get(page, f"docs/{page}")


def copy_of(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return f"{COPIES}/{path}" if Path(path).suffix in SHOWN else f"{COPIES}/{path}.txt"


def with_links(text: str, change: Callable[[str], str]) -> str:
    """The text with each link changed, but for those in code."""
    parts, end = [], 0
    for code in _CODE.finditer(text):
        parts += [_links(text[end : code.start()], change), code[0]]
        end = code.end()
    return "".join([*parts, _links(text[end:], change)])


def _links(text: str, change: Callable[[str], str]) -> str:
    return _LINK.sub(lambda link: f"{link[1]}{change(link[2])}{link[3]}", text)


def destination(link: str, page: str) -> tuple[str, str] | None:
    """What a link of a page means in the repository, and the rest of it from "#"; None: not in there."""
    target, hash_sign, anchor = link.partition("#")
    if re.match(r"\w+:", link) or not target:
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(source_of(page)), target)), hash_sign + anchor


def in_site(path: str) -> str:
    """Where in the site a file of the repository is shown."""
    for page, source in PAGES.items():
        if path == source:
            return page
    return path.removeprefix("docs/") if path.startswith("docs/") else copy_of(path)


def on_files(files: Files, config: Any) -> Files:
    """Add the texts that stand elsewhere, and copies of what the pages point to."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    copies: set[str] = set()

    def note(link: str, page: str) -> str:
        found = destination(link, page)
        if found is not None and in_site(found[0]).startswith(f"{COPIES}/"):
            copies.add(found[0])
        return link

    for file in files.documentation_pages():
        text = (ROOT / source_of(file.src_uri)).read_text(encoding="utf-8")
        with_links(text, lambda link, page=file.src_uri: note(link, page))  # type: ignore[misc]
    for path in sorted(copies):
        if (ROOT / path).is_file():  # mkdocs complains of a link to one that is not
            files.append(File.generated(config, copy_of(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are in the site."""
    own: str = page.file.src_uri

    def change(link: str) -> str:
        found = destination(link, own)
        if found is None:
            return link
        return posixpath.relpath(in_site(found[0]), posixpath.dirname(own) or ".") + found[1]

    return with_links(markdown, change)
