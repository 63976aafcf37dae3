"""The folders of bench/: what is started lies beside them, and what they import lies in one of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from _compile import ROOT

BENCH = ROOT / "bench"
# The rooms that each may import, beside itself.
MAY_IMPORT = {
    "common": set(),
    "rivals": {"common"},
    "job": {"common"},
    "micro": {"common", "rivals"},
    "nets": {"common", "rivals"},
    "on_gpu": {"common", "rivals"},
}
SCRIPTS = {path.stem for path in BENCH.glob("*.py")}


def imported(path: Path) -> Iterator[str]:
    """The first part of each name that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_every_folder_is_a_room_that_says_its_job() -> None:
    assert {path.parent.name for path in BENCH.glob("*/*.py")} == MAY_IMPORT.keys()
    for room in MAY_IMPORT:
        assert ast.get_docstring(ast.parse((BENCH / room / "__init__.py").read_text(encoding="utf-8"))), room


def test_arrows_run_one_way() -> None:
    for room, allowed in MAY_IMPORT.items():
        for path in (BENCH / room).glob("*.py"):
            found = set(imported(path)) & (MAY_IMPORT.keys() | SCRIPTS)
            assert found <= allowed | {room}, f"{path.relative_to(ROOT)} imports {found - allowed - {room}}"


def test_a_script_imports_no_other() -> None:
    for path in BENCH.glob("*.py"):
        assert not set(imported(path)) & SCRIPTS, path.name
        assert not path.name.startswith("_"), f"{path.name} is imported, and belongs in a room"
