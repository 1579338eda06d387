"""WordNet's noun file, and the same as a table: synsets and what lies above them."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path


def read_synsets(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """(wnid, hypernyms, instance hypernyms) of each noun synset of a `data.noun` file or a table of wnids."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    lines = data.decode("utf-8", errors="replace").split("\n")
    header = lines[0].rstrip("\r").split("\t")
    if "wnid" in header:
        columns = [header.index(name) for name in ("wnid", "hypernyms", "instance_hypernyms") if name in header]
        if len(columns) < 3:
            raise ValueError(f"Hierarchy.from_wordnet: {path} lacks the columns wnid, hypernyms, instance_hypernyms")
        for number, line in enumerate(lines[1:], 2):
            cells = line.rstrip("\r").split("\t")
            if len(cells) > max(columns):
                wnid, hypernyms, classes = (cells[column] for column in columns)
                yield wnid, hypernyms.split(), classes.split()
            elif line.strip():
                raise ValueError(
                    f"Hierarchy.from_wordnet: {path} line {number} has {len(cells)} columns, not {len(header)}"
                )
        return
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("  "):  # the licence at the top is indented by two spaces
            continue
        try:
            yield _parse_synset(line)
        except (ValueError, IndexError):
            raise ValueError(
                f"Hierarchy.from_wordnet: {path} line {number} is no synset of data.noun: {line[:60]!r}"
            ) from None


def _parse_synset(line: str) -> tuple[str, list[str], list[str]]:
    """One line of data.noun, wndb(5WN): offset, file number, type, word count (hex), words, pointer count, pointers."""
    fields = line.split("|", 1)[0].split()
    if not re.fullmatch(r"\d{8}", fields[0]) or fields[2] != "n":
        raise ValueError(line)
    start = 4 + 2 * int(fields[3], 16)  # each word is followed by its lexical id
    pointers = fields[start + 1 : start + 1 + 4 * int(fields[start])]
    if len(pointers) != 4 * int(fields[start]):
        raise ValueError(line)
    above: dict[str, list[str]] = {"@": [], "@i": []}
    for symbol, offset, part_of_speech in zip(pointers[::4], pointers[1::4], pointers[2::4], strict=True):
        if symbol in above and part_of_speech == "n":
            above[symbol].append(f"n{offset}")
    return f"n{fields[0]}", above["@"], above["@i"]
