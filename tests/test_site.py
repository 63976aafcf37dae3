"""The site of `make docs`: no warning, links that lead somewhere, and pages that a browser shows."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from _compile import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: `make docs` installs it"
    ),
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Of a telephone, and of a desk.
WIDTHS = (390, 1280)
# Milliseconds, on a machine that is busy with other things.
PATIENCE = 120_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Page(HTMLParser):
    """What a page points to, and the places in it that can be pointed to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name in ("id", "name") and value:
                self.places.add(value)


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 12
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links begin at the root of the server
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].places, f"{path.name}: {link}"


def test_the_api_has_what_the_package_exports(site: Path) -> None:
    import lif_cuda
    from lif_cuda import surrogate

    places = Page((site / "api.html").read_text(encoding="utf-8")).places
    modules = {"encoding", "functional", "models", "plot", "surrogate"}
    for name in set(lif_cuda.__all__) - modules:
        assert f"lif_cuda.{name}" in places, name
    shapes = [value for value in vars(surrogate).values() if isinstance(value, type)]
    for shape in shapes:
        if issubclass(shape, surrogate.Surrogate):
            assert f"lif_cuda.surrogate.{shape.__name__}" in places, shape


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for tag in ('<script src="http', '<link rel="stylesheet" href="http', "fonts.g"):
            assert tag not in text, f"{path.name}: {tag}"


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where a server has the site."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: `make docs` installs it"
    )
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("there is no Chromium: on Debian, apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_every_page(site: Path, address: str, browser: Any, width: int) -> None:
    """No error in the console, nothing missing, pictures are there, and nothing is wider than the window."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    faults: list[str] = []
    page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(f"{request.url} failed"))
    page.on("response", lambda got: faults.append(f"{got.url}: {got.status}") if got.status >= 400 else None)
    for path in sorted(site.glob("*.html")):
        if path.name == "404.html":
            continue
        page.goto(f"{address}/{path.name}", timeout=PATIENCE)
        page.wait_for_load_state("networkidle")
        assert page.locator("article h1").count() == 1, path.name
        unseen = page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
        assert unseen == [], f"{path.name}: pictures"
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{path.name} is {wider} pixels wider than a window of {width}"
        assert faults == [], f"{path.name}: {faults}"
    page.close()


def test_a_reader_finds_a_word(address: str, browser: Any) -> None:
    """The search of the site runs in the browser."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/index.html", timeout=PATIENCE)
    page.wait_for_load_state("networkidle")  # the index of words has come
    page.locator("input.md-search__input").press_sequentially("snnTorch", delay=50)
    page.locator("a.md-search-result__link").first.wait_for(timeout=PATIENCE)
    assert "migrating.html" in " ".join(
        link.get_attribute("href") or "" for link in page.locator("a.md-search-result__link").all()
    )
    page.close()
