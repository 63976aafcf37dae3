"""The code on pages of docs/ that stands for itself runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from _compile import ROOT

PAGES = ("nir.md", "encoding.md")
NEEDED = {"import nir\n": "nir", "from snntorch": "snntorch"}


def blocks() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text()
        found += [
            (page, code) for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        ]
    return found


@pytest.mark.parametrize(("page", "code"), blocks(), ids=lambda value: value if value in PAGES else "")
def test_the_code_runs(page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line, package in NEEDED.items():
        if line in code:
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    exec(code, {})


def test_each_page_has_code() -> None:
    assert {page for page, _ in blocks()} == set(PAGES)
