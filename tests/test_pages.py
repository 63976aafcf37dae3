"""The README and the pages of docs/: what they print runs, and what they point to is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from _compile import ROOT

README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES]
# Their blocks of code are run from the first to the last, in one namespace. docs/migrating.md has a test of
# its own, and in docs/export.md `network` and `x` are the reader's.
RUN_HERE = ["guide.md", "readouts.md", "events.md", "recurrent.md", "lengths.md", "encoding.md", "nir.md"]
# What a page needs beside the package.
NEEDED = {"encoding.md": "snntorch", "nir.md": "nir"}


def blocks(page: Path) -> list[str]:
    """The blocks of Python in a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The names by which headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_readme_is_short() -> None:
    assert README.stat().st_size < 12_000


def test_the_network_of_the_readme_learns(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, which has the digits, is not installed")
    import torch

    torch.manual_seed(0)
    (code,) = blocks(README)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 25
    space: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), space)
    assert space["accuracy"] > 0.88  # 92 to 95 % with other seeds
    assert f"{space['accuracy']:.1%}" in capsys.readouterr().out


@pytest.mark.parametrize("page", RUN_HERE)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page in NEEDED:
        pytest.importorskip(NEEDED[page], reason="pip install --no-deps -r tests/libraries.txt")
    monkeypatch.chdir(tmp_path)
    path = ROOT / "docs" / page
    found = blocks(path)
    assert found
    space: dict[str, Any] = {}
    for number, code in enumerate(found, 1):
        exec(compile(code, f"{page}, block {number}", "exec"), space)


@pytest.mark.parametrize("page", TEXTS, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.is_file(), f"{link}: there is no such file"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{link}: there is no such heading"


def test_commands_of_make_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in TEXTS:
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"


NAMED = re.compile(r"`((?:tests|bench|csrc|lif_cuda|docs|examples|tools)/[\w/.]+\.\w+)")
BUILT = {"lif_cuda/_kernels.so", "lif_cuda/_kernels_cuda.so"}


def test_files_that_the_texts_name_are_there() -> None:
    for page in TEXTS:
        for name in NAMED.findall(page.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file() or name in BUILT, f"{page.name}: {name}"
