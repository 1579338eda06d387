"""Captions of images, with sentence embeddings where there are some."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash.datasets.files import existing


class CocoCaptions(NamedTuple):
    """Captions of COCO images with sentence embeddings; row i of each belongs together."""

    captions: list[str]
    embeddings: NDArray[np.float32]  # [N, E], unit length
    images: NDArray[np.int64]  # [N], the image that a caption describes


def coco_captions(folder: str | PathLike[str]) -> CocoCaptions:
    """Captions and their sentence embeddings from a folder with captions.tsv (image_id, caption_id, caption) and
    minilm_l6_v2_f16.npz (embedding [N, E], row i = caption row i).

    Raises FileNotFoundError, naming what is missing, and ValueError where the two do not have as many rows.
    """
    table = existing(Path(folder) / "captions.tsv", "coco_captions")
    archive = existing(Path(folder) / "minilm_l6_v2_f16.npz", "coco_captions")
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    with np.load(archive, allow_pickle=False) as arrays:
        embeddings = arrays["embedding"].astype(np.float32)
    if len(rows) != len(embeddings):
        raise ValueError(f"coco_captions: {table} has {len(rows)} rows, and {archive.name} {len(embeddings)}")
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True).clip(min=1e-12)
    images = np.array([int(row["image_id"]) for row in rows], dtype=np.int64)
    return CocoCaptions([row["caption"] for row in rows], embeddings, images)


class ConceptualCaptions(NamedTuple):
    """Captions with the addresses of their images; row i of each belongs together."""

    captions: list[str]
    urls: list[str]


def conceptual_captions(path: str | PathLike[str]) -> ConceptualCaptions:
    """Captions and image addresses from a Conceptual Captions file as distributed: caption, tab, url; no header.

    A first line "caption, tab, url" is taken as a header and left out. Raises FileNotFoundError, and ValueError, naming
    the line, for one that does not have two parts.
    """
    captions: list[str] = []
    urls: list[str] = []
    with existing(Path(path), "conceptual_captions").open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            parts = line.rstrip("\r\n").split("\t")
            if len(parts) != 2:
                raise ValueError(f"conceptual_captions: {path}, line {number}: must be caption, tab, url, got {line!r}")
            if number == 1 and parts == ["caption", "url"]:
                continue
            captions.append(parts[0])
            urls.append(parts[1])
    return ConceptualCaptions(captions, urls)
