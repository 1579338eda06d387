"""PubMedQA as its authors distribute it: questions on biomedical papers, the abstracts that answer them, MeSH terms."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash.datasets.files import existing

# Columns by the names that they have in the files.
TEXTS = {"questions": "QUESTION", "conclusions": "LONG_ANSWER"}
LISTS = {"contexts": "CONTEXTS", "mesh": "MESHES"}
LABELLED, TEST = "ori_pqal.json", "test_ground_truth.json"


class PubMedQA(NamedTuple):
    """Questions and the abstracts of their papers; row i of each belongs together."""

    ids: list[str]  # of PubMed
    questions: list[str]
    contexts: list[str]  # the sections of the abstract but its conclusion, joined by spaces
    conclusions: list[str]  # the last section, which answers the question
    mesh: list[tuple[str, ...]]  # Medical Subject Headings: what the paper is about
    years: list[str]  # of publication; "" where the file has none
    decisions: list[str]  # "yes", "no" or "maybe"; "" where the file has none
    test: NDArray[np.bool_] | None  # [N], which rows are the authors' test set; None without the file that says so


def pubmedqa(path: str | PathLike[str]) -> PubMedQA:
    """Questions, abstracts and MeSH terms, in the order of the file.

    path: a folder with ori_pqal.json, the 1,000 questions that people have answered, and test_ground_truth.json, the
    numbers of the 500 that are the test set; or one of the authors' other files, which have the same format:
    ori_pqaa.json, ori_pqau.json, train_set.json, dev_set.json, test_set.json.

    Jin et al., "PubMedQA: A Dataset for Biomedical Research Question Answering" (EMNLP 2019), github.com/pubmedqa. Its
    licence is MIT. Nothing of it is in this package.

    Raises FileNotFoundError, naming what is missing, and ValueError, naming file and row, for one that is not of the
    format, and for a test set of other questions.
    """
    root = Path(path)
    file = existing(root / LABELLED if root.is_dir() else root, "pubmedqa")
    rows = _read(file)
    texts = {name: [_text(row, key, id, file) for id, row in rows.items()] for name, key in TEXTS.items()}
    lists = {name: [_texts(row, key, id, file) for id, row in rows.items()] for name, key in LISTS.items()}
    return PubMedQA(
        list(rows),
        texts["questions"],
        [" ".join(parts) for parts in lists["contexts"]],
        texts["conclusions"],
        [tuple(terms) for terms in lists["mesh"]],
        [_text(row, "YEAR", id, file, optional=True) for id, row in rows.items()],
        [_text(row, "final_decision", id, file, optional=True) for id, row in rows.items()],
        _test_set(root / TEST, list(rows)) if root.is_dir() and (root / TEST).exists() else None,
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"pubmedqa: {file} is not a JSON file: {error}") from None
    if not isinstance(rows, dict):
        raise ValueError(f"pubmedqa: {file} must hold an object with an entry for each id, got {type(rows).__name__}")
    return rows


def _text(row: Any, key: str, id: str, file: Path, *, optional: bool = False) -> str:
    found = row.get(key) if isinstance(row, dict) else None
    if optional and found is None:
        return ""
    if not isinstance(found, str):
        raise ValueError(f"pubmedqa: {file}, row {id!r}: {key} must be a text, got {found!r}")
    return found


def _texts(row: Any, key: str, id: str, file: Path) -> list[str]:
    found = row.get(key) if isinstance(row, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError(f"pubmedqa: {file}, row {id!r}: {key} must be a list of texts, got {found!r}")
    return found


def _test_set(file: Path, ids: list[str]) -> NDArray[np.bool_]:
    tested = _read(file)
    unknown = sorted(set(tested) - set(ids))
    if unknown:
        raise ValueError(f"pubmedqa: {file} names {unknown[0]!r}, which is not among the {len(ids)} questions")
    return np.array([id in tested for id in ids], dtype=np.bool_)
