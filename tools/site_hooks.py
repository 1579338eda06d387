"""Hooks of mkdocs.yml: pages that lie outside docs/, links that lead there, and the help of every command.

Pages are written for a forge, where links like `../benchmarks/results/pairs.md` work. The site has no such files, so
their links lead to the repository.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md", "security.md": "SECURITY.md"}


def on_files(files: Files, config: Any) -> Files:
    """The pages that a forge wants at the root are pages of the site too."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    uri = page.file.src_uri
    source = ROOT / PAGES[uri] if uri in PAGES else ROOT / "docs" / uri
    if uri == "reference/cli.md":
        markdown += commands()
    markdown = re.sub(r"^```python no-run$", "```python", markdown, flags=re.M)

    def link(match: re.Match[str]) -> str:
        return f"]({target(match[1], source.parent, uri, config.repo_url)})"

    return re.sub(r"\]\((?!https?:|mailto:|#)([^)\s]+)\)", link, markdown)


def target(link: str, folder: Path, uri: str, repository: str) -> str:
    """Where a link of a page leads on the site; `folder` is that of the page's source."""
    name, mark, part = link.partition("#")
    place = (folder / name).resolve().relative_to(ROOT).as_posix()
    own = {source: page for page, source in PAGES.items()}.get(place) or place.removeprefix("docs/")
    if place.startswith("docs/") or place in PAGES.values():
        return os.path.relpath(own, Path(uri).parent) + mark + part
    return f"{repository}/blob/main/{place}{mark}{part}"


def commands() -> str:
    """The help of each command, as `fasthash COMMAND --help` prints it on 88 columns."""
    os.environ["COLUMNS"] = "88"
    from fasthash.cli.parser import make_parser

    def sections(parser: argparse.ArgumentParser) -> list[str]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                return [text for own in action.choices.values() for text in sections(own)]
        return [f"## {parser.prog}\n\n```text\n{parser.format_help()}```\n"]

    return "\n" + "\n".join(sections(make_parser()))
