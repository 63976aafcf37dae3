"""What a project carries beside its code: version, licence, citation, templates, hooks, public CI."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

from _compile import ROOT

import lif_cuda

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_stands_in_one_place() -> None:
    """And what has to repeat it agrees."""
    assert "version" not in PROJECT and PROJECT["dynamic"] == ["version"]
    assert metadata.version("lif_cuda") == lif_cuda.__version__
    assert re.search(r'^__version__ = "(.+)"$', text("lif_cuda/__init__.py"), re.MULTILINE)
    assert re.search(r"^version: (.+)$", text("CITATION.cff"), re.MULTILINE)[1] == lif_cuda.__version__  # type: ignore[index]


def test_a_release_is_in_the_changelog() -> None:
    """Headings are in the usual form. Before the first release all stands under Unreleased."""
    headings = re.findall(r"^## (.+)$", text("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    for heading in headings[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading), heading
    usual = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text("CHANGELOG.md"), re.MULTILINE)) <= usual


def test_the_licence_is_in_what_is_installed() -> None:
    assert PROJECT["license"] == "MIT" and text("LICENSE").startswith("MIT License\n")
    installed = metadata.metadata("lif_cuda")
    assert installed["License-Expression"] == "MIT"
    files = [path for path in metadata.files("lif_cuda") or () if path.name == "LICENSE"]
    assert [path.read_text() for path in files] == [text("LICENSE")]


def test_the_citation_has_what_its_readers_need() -> None:
    keys = set(re.findall(r"^([\w-]+):", text("CITATION.cff"), re.MULTILINE))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= keys
    assert "name: the lif_cuda authors" in text("CITATION.cff")


def test_public_ci_runs_what_there_is() -> None:
    ran = re.findall(r"- run: make ([a-z-]+)", text(".github/workflows/ci.yml"))
    assert {"test", "mnist", "lint", "docs"} <= set(ran)
    for target in ran:
        assert re.search(rf"^{target}:", text("Makefile"), re.MULTILINE), target


def test_hooks_take_the_versions_of_lint() -> None:
    developer = set(PROJECT["optional-dependencies"]["dev"])
    asked = re.findall(r'additional_dependencies: \["(.+)"\]', text(".pre-commit-config.yaml"))
    assert asked and set(asked) <= developer
