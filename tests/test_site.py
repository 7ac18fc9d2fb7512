"""The documentation as a site: it builds without a warning, is whole, and a browser loads nothing from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.documentation import ROOT

for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
    pytest.importorskip(package, reason=f"{package} is not installed: python -m pip install '.[docs]'")

LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}  # by a browser, unasked


class References(HTMLParser):
    """What a page loads by itself, and what it links to."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if given.get(LOADED.get(tag)):
            self.loaded.append(given[LOADED[tag]])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder with the built site. A warning of mkdocs is an error, as in the command that CONTRIBUTING names."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: References(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_page_and_result_of_the_repository_is_there(site):
    wanted = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    wanted += [Path("results", path.name).with_suffix(".html") for path in (ROOT / "benchmarks/results").glob("*.md")]
    assert [str(path) for path in wanted if not (site / path).exists()] == []


def test_every_page_of_results_is_in_the_menu(site, pages):
    """Of the first page, whose text has none of them; mkdocs does not say which are left out."""
    menu = {link for link in pages[site / "index.html"].links if link.startswith("results/")}
    assert {f"results/{path.stem}.html" for path in (ROOT / "benchmarks/results").glob("*.md")} <= menu


def test_a_browser_loads_nothing_from_elsewhere(site, pages):
    assert pages
    loaded = {one for page in pages.values() for one in page.loaded if "//" in one}
    styles = [
        path for path in site.rglob("*.css") if re.search(r"(url\(|@import )[\"']?(https?:)?//", path.read_text())
    ]
    assert (loaded, styles) == (set(), [])


def test_links_and_pictures_lead_somewhere(site, pages):
    """Those of HTML too, which mkdocs does not look at."""
    missing = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # whose links are from the root of a server
        for target in (*page.loaded, *page.links):
            place = target.partition("#")[0].partition("?")[0]
            if place and ":" not in place and not (path.parent / place).exists():
                missing.append(f"{path.relative_to(site)}: {target}")
    assert missing == []


def test_the_gallery_has_a_picture_figures_and_a_source_for_every_mask(site):
    text = (site / "gallery.html").read_text(encoding="utf-8")
    cards = text.split('<div class="mask">')[1:]
    assert len(cards) >= 20
    for card in cards:
        assert "<svg" in card
        assert "arxiv.org" in card
        kept, computed = (
            float(re.search(rf"{name} there</dt><dd>([\d.]+)%", card)[1]) for name in ("keeps", "computes")
        )
        assert 0 < kept <= computed <= 101  # tiles reach beyond the diagonal, and the last ones beyond the end


def test_every_public_name_stands_in_the_reference(site):
    import flurka_numba
    import splat_numba

    text = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    found = set(re.findall(r'id="(?:splat|flurka)_numba\.([\w.]+)"', text))
    last = {name.rpartition(".")[2] for name in found}
    modules = {"errors", "reference", "testing", "from_csr", "from_dense"}  # pages of their own; ACSR's
    assert {*splat_numba.__all__, *flurka_numba.__all__} - last - modules == set()
