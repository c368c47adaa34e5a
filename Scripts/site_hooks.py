# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What mkdocs does not do by itself: lists of pages for the navigation, and links to files that are not pages."""

import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def pages(directory):
    """The pages of a directory, its index first."""
    names = sorted(path.name for path in (DOCS / directory).glob("*.md"))
    return [f"{directory}/{name}" for name in sorted(names, key=lambda name: name != "index.md")]


def on_config(config):
    """Directories in the navigation become their pages; pages that it does not name come last."""
    known = set()

    def expand(entry):
        if isinstance(entry, str):
            known.add(entry)
            return entry
        [(title, value)] = entry.items()
        if isinstance(value, str) and value.endswith("/"):
            known.update(pages(value.rstrip("/")))
            return {title: pages(value.rstrip("/"))}
        if isinstance(value, str):
            known.add(value)
            return entry
        return {title: [expand(one) for one in value]}

    nav = [expand(entry) for entry in config["nav"]]
    rest = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    rest = [path for path in rest if path not in known]
    config["nav"] = nav + ([{"More": rest}] if rest else [])
    return config


def on_page_markdown(markdown, page, config, files):
    """A link to a file of the repository that is no page becomes the file's name. One that leads nowhere is an error."""

    def replace(match):
        text, target, _ = match.groups()
        inside = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), target))
        if inside.startswith("docs/") and inside.endswith(".md"):
            return match[0]
        if not (ROOT / inside).exists():
            raise PluginError(f"{page.file.src_uri}: a link to {target}, which is not there")
        if inside == "docs/decisions":
            return f"[{text}]({posixpath.relpath('decisions/' + Path(pages('decisions')[0]).name, posixpath.dirname(page.file.src_uri) or '.')})"
        return f"{text} (`{inside}`)" if inside not in text else f"`{inside}`"

    return LINK.sub(replace, markdown)
