# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The documentation as a site, and the links of the documents that are not in it."""

import html.parser
import os
import re
import shutil
import subprocess
import sys

import pytest

from . import symbols
from .blocks import ROOT
from .symbols import dead_links

OUTSIDE = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Charts/martlet/README.md", "Tests/Integration/README.md",
           "Tests/Fuzz/README.md"]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    place = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", place)
    assert done.returncode == 0, done.stderr
    return place


def build(configuration, place):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", configuration, "--site-dir",
         place], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})  # fmt: skip


class References(html.parser.HTMLParser):
    """What a page fetches, where it links to, and the places that can be linked to."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        elif tag in ("script", "img", "link") and attributes.get("rel") != "canonical":
            self.fetched.append(attributes.get("src") or attributes.get("href") or "")


def test_every_page_is_built_and_its_links_lead_somewhere(site):
    pages = {path: References(path.read_text()) for path in site.rglob("*.html")}
    built = {path.parent.relative_to(site).as_posix() for path in pages if path.name == "index.html"}
    for source in (ROOT / "docs").rglob("*.md"):
        name = source.relative_to(ROOT / "docs").with_suffix("").as_posix()
        assert (name.removesuffix("/index") if name != "index" else ".") in built, source
    for path, page in pages.items():
        assert not [one for one in page.fetched if re.match(r"(https?:)?//", one)], f"{path} fetches from elsewhere"
        if path.name == "404.html":
            continue
        for link in page.links:
            if re.match(r"(https?|mailto):|javascript:", link):
                continue
            target, _, anchor = link.partition("#")
            found = (path.parent / target).resolve() if target else path
            found = found / "index.html" if found.is_dir() else found
            assert found in pages or found.exists(), f"{path}: {link}"
            if anchor and found in pages:
                assert anchor in pages[found].anchors, f"{path}: {link}"


def test_a_link_that_leads_nowhere_fails(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    text = (ROOT / "mkdocs.yml").read_text()
    text = re.sub(r"(?s)\nnav:.*", "\nnav:\n  - Start: index.md\n", text)
    text = re.sub(r"(?m)^hooks:.*$", "", text)
    (tmp_path / "mkdocs.yml").write_text(text)
    for link, complaint in (("nothing.md", "'nothing.md', but the target is not found"), ("#b", "no such anchor")):
        (docs / "index.md").write_text(f"# A\n\n[a]({link})\n")
        done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
        assert done.returncode != 0 and complaint in done.stderr, done.stderr


def test_failure_modes_name_tests_that_are_there():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "docs/failure-modes.md").read_text())
    assert len(named) > 20
    for path, test in named:
        text = (ROOT / "Tests/Integration" / path).read_text()
        assert re.search(rf"(?m)^ *(async )?def {test}\(", text), (path, test)


def slug(heading):
    """A heading's anchor, as GitHub makes it."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@pytest.mark.parametrize("name", OUTSIDE)
def test_links_of_other_documents(name):
    page = ROOT / name
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text())
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in {slug(line.lstrip("#")) for line in found.read_text().splitlines() if line.startswith("#")}


def test_links_of_comments_lead_to_what_modules_show():
    """In every module; DocC itself reads one below."""
    assert not [link for path in sorted((ROOT / "Sources").iterdir()) for link in dead_links(path.name)]


def test_a_link_of_a_comment_that_leads_nowhere_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(symbols, "ROOT", tmp_path)
    (tmp_path / "Sources/Sample").mkdir(parents=True)
    (tmp_path / "Sources/Sample/Sample.swift").write_text("""
    /// Shown: ``Sample/one(of:_:)``, ``Kind/first``, ``Sample``. Not so: ``Sample/two``, ``one(_:)``, ``Hidden``.
    package struct Sample {
        package func one(of first: [Int: String], _ second: (Int, Int)) {}
        func two() {}
        /// Nobody reads this: ``nothing``.
        struct Hidden {}
    }
    package enum Kind {
        /// ``Gone``.
        case first, second(Int)
    }
    """)
    assert [link.rsplit(" ", 1)[1] for link in dead_links("Sample")] == ["Sample/two", "one(_:)", "Hidden", "Gone"]


# A compiler has to read a module: seconds, but for a machine that compiles other things too.
@pytest.mark.timeout(900)
def test_a_module_documents_itself(tmp_path):
    """As DocC, of what the build left: a link in a comment that leads nowhere fails."""
    if not (ROOT / ".build/release/Modules/Telemetry.swiftmodule").exists() or shutil.which("docc") is None:
        pytest.skip("there is no release build of this repository to document")
    done = subprocess.run([ROOT / "Scripts/api-docs", "--output", tmp_path, "Telemetry"], capture_output=True, text=True,
                          timeout=840, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.stem for path in (tmp_path / "Telemetry.doccarchive/data/documentation/telemetry").iterdir()}
    assert {"log", "exposition", "exemplarcells", "eventlog"} <= pages
