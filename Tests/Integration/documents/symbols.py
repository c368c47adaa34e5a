# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Links in the documentation comments of the sources, as DocC resolves them: by what a module shows to others.

DocC itself has to read a module for seconds (Scripts/api-docs); this reads the text. It knows names and labels of parameters, not
types: a name that a module shows in one place and hides in another passes.
"""

import re

from .blocks import ROOT

DECLARATION = re.compile(
    r"^(\s*)(?:@\w+(?:\([^)]*\))?\s+)*((?:[a-z]+(?:\(set\))?\s+)*?)"
    r"(struct|class|enum|protocol|typealias|associatedtype|func|var|let|init|subscript|case)\b\s*(\w*)")  # fmt: skip
TYPES = ("struct", "class", "enum", "protocol")


def labels(text):
    """The labels of the parameters behind an opening parenthesis, each with its colon."""
    depth, parts = 0, [""]
    for char in text:
        depth += (char in "([<{") - (char in ")]>}")
        if depth < 0:
            break
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return "".join(re.match(r"\s*(?:@\w+\s+)*(\w+)", part)[1] + ":" for part in parts if part.strip())


def declarations(text):
    """(line number, match, whether it is shown, position) of each declaration of a file."""
    around, position = [], 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        found = None if line.lstrip().startswith("//") else DECLARATION.match(line)
        if found:
            indent, modifiers, kind = len(found[1]), found[2].split(), found[3]
            while around and around[-1][0] >= indent:
                around.pop()
            outer = around[-1] if around else (0, "", False)
            shown = bool({"package", "public"} & set(modifiers))
            # What an enumeration or a protocol has is shown with it.
            shown |= outer[2] and (kind == "case" and outer[1] == "enum" or outer[1] == "protocol")
            if kind in TYPES:
                around.append((indent, kind, shown))
            yield number, found, shown, position
        position += len(line)


def shown(texts):
    """Names that a module shows, functions with their labels too."""
    names = set()
    for text in texts:
        for _, found, is_shown, position in declarations(text):
            if not is_shown:
                continue
            kind, name = found[3], found[4] or found[3]
            names.add(name)
            if kind == "case":
                line = text[position:].split("\n", 1)[0].split("case", 1)[1]
                names |= set(re.findall(r"(\w+)(?=\s*(?:[(,=]|$))", re.sub(r"\([^)]*\)", "", line)))
            elif kind in ("func", "init", "subscript"):
                start = text.index("(", position + found.start(3))
                names.add(f"{name}({labels(text[start + 1:])})")
    return names


def dead_links(module):
    """Links in comments of what a module shows, that lead to nothing which it shows: file, line, link."""
    paths = sorted(path for path in (ROOT / "Sources" / module).rglob("*.swift") if ".docc" not in str(path))
    texts = {path: path.read_text() for path in paths}
    known = shown(texts.values())
    for path, text in texts.items():
        lines = text.splitlines()
        for number, _, is_shown, _ in declarations(text):
            above = number - 2
            while is_shown and above >= 0 and re.match(r"\s*(///|@)", lines[above]):
                for link in re.findall(r"(?<!`)``([^`]+)``(?!`)", lines[above] if "///" in lines[above] else ""):
                    *first, last = re.sub(r"-\(.*$", "", link).split("/")
                    plain = last.split("(")[0]
                    # A case with values, and a function without its labels, is spelled as one likes.
                    loose = plain in known and not any(name.startswith(plain + "(") for name in known)
                    if not (last in known or loose) or not set(first) <= known:
                        yield f"{path.relative_to(ROOT)}:{above + 1}: {link}"
                above -= 1
