"""mkdocs hooks: the generated pages, and the repository's own Markdown, become part of the site.

Pages link to files of the repository as files lie there. Whatever such a link names outside ``docs/`` comes into the
site, READMEs as pages below ``code/``, and the link is turned to it; so that one text serves repository and site.
"""

from __future__ import annotations

import os.path
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent

# Pages that the navigation names, by their place in the site.
_PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/metrics.md": "reference/metrics.md",
}
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=(?:#[^)\s]*)?\))")
_CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def links(markdown: str) -> Iterator[str]:
    """The relative links of a page, without their anchors; code holds none."""
    for target in _LINK.findall(_CODE.sub("", markdown)):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


def resolved(page: str, target: str) -> str:
    """What a link on a page names; both, and the result, as paths in the repository."""
    return os.path.normpath(PurePosixPath(page).parent / target)


def site_path(path: str) -> str:
    """Where a file of the repository lies among the site's sources."""
    return path.removeprefix("docs/") if path.startswith("docs/") else _PLACES.get(path, f"code/{path}")


def turned(markdown: str, page: str) -> str:
    """The text with links to where the files lie in the site."""
    here = PurePosixPath(site_path(page)).parent

    def turn(match: re.Match[str]) -> str:
        target = match[0]
        if "://" in target or target.startswith("mailto:"):
            return target
        return os.path.relpath(site_path(resolved(page, target)), here)

    return _outside_code(markdown, lambda text: _LINK.sub(turn, text))


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    parts, at = [], 0
    for fence in _CODE.finditer(markdown):
        parts += [change(markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, change(markdown[at:])])


def sources() -> dict[str, str]:
    """Every page of the site: its path in the repository, or where it would be kept if it were -> its text."""
    # mkdocs takes back what a hook adds to the path as it is loaded.
    if str(DOCS) not in sys.path:
        sys.path.append(str(DOCS))
    from generate import pages

    found = {f"docs/{name}": text for name, text in pages().items()}
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "encoder/**/*.md",
        "targeting/**/*.md",
        "streams/**/*.md",
        "deploy/**/*.md",
        "tests/README.md",
    ):
        for path in sorted(ROOT.glob(pattern)):
            found[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8")
    return found


def linked_files(texts: dict[str, str]) -> list[str]:
    """Files of the repository outside ``docs/`` that pages link to and that are no pages themselves."""
    named = {resolved(page, target) for page, text in texts.items() for target in links(text)}
    return sorted(name for name in named if name not in texts and not name.startswith("docs/"))


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    texts = sources()
    for page, text in texts.items():
        if not (DOCS.parent / page).is_file() or not page.startswith("docs/"):
            files.append(File.generated(config, site_path(page), content=turned(text, page)))
    for name in linked_files(texts):
        files.append(File.generated(config, site_path(name), abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    name = f"docs/{page.file.src_uri}"
    return turned(markdown, name) if (ROOT / name).is_file() else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Without the names of Sphinx's roles, which stand in some docstrings before what they name."""
    return re.sub(r":(?:attr|class|func|meth|mod):\s*(?=<code>)", "", html)


def on_config(config: Any) -> Any:
    """Decisions and folders come into the navigation by themselves."""
    decisions = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.glob("adr/*.md"))
    folders = [
        path.relative_to(ROOT)
        for package in ("encoder", "significance", "targeting", "streams", "deploy", "tests")
        for path in sorted((ROOT / package).rglob("README.md"))
    ]
    config.nav += [
        {"Decisions": decisions},
        {"Code": [{str(path.parent): f"code/{path}"} for path in folders]},
    ]
    return config
