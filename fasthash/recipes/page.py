"""The page of a setting: what its codes find in the first protocol, where all is unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fasthash.codes import pack_bits
from fasthash.recipes.experiment import Experiment, Rows
from fasthash.recipes.pictures import FilePictures
from fasthash.report import Report

SHOWN = 30  # queries


def write_page(path: Path, experiment: Experiment, setting: str, outputs: list[Tensor], rows: list[Rows]) -> None:
    """outputs: of queries and database, [Q, bits] and [N, bits] in [0, 1]; rows: which pictures these are."""
    queries, stored = (part.cpu() for part in outputs)
    given: dict[str, Any] = {}
    for name, part in zip(("query_", ""), rows, strict=True):
        given |= {f"{name}names": _names(experiment, part)}
        if experiment.texts:
            given |= {f"{name}texts": [experiment.texts[row] for row in part]}
        if experiment.has_classes:
            given |= {
                f"{name or 'database_'}labels": [experiment.class_names[label] for label in experiment.labels[part]]
            }
    if isinstance(experiment.pictures, FilePictures):
        given |= {"images": experiment.pictures.folder}
    title = f"{setting}: {experiment.protocols[0].title}"
    report = Report(
        pack_bits(stored).numpy(), queries.numpy(), hierarchy=experiment.hierarchy, bits=queries.shape[1], limit=SHOWN,
        title=title, **given,
    )  # fmt: skip
    report.write(path)


def _names(experiment: Experiment, rows: Rows) -> list[str]:
    if isinstance(experiment.pictures, FilePictures):
        return [experiment.pictures.keys[row] for row in rows]
    return [f"picture {row}" for row in np.asarray(rows)]
