"""Retrieval metrics, exact over tied distances: for codes from per-distance counts, for embeddings from rankings.

Functions of labels take `query` [Q, ...] and `database` [N, ...]: packed uint8 codes, compared by Hamming distance, or
floating-point embeddings with metric "l1" (default), "l2" or "cosine"; and labels, 1-D classes (integers or strings;
relevant = the same class) or 2-D multi-hot (relevant = at least one label in common). numpy arrays or torch tensors;
labels also lists, Series, categoricals and data frames. One column of labels [N, 1] is 1-D classes.

bit_weights (codes only): weights of groups of bits, as in `fasthash.hamming_topk`. Codes are then ranked by the
weighted distance, and a radius is one.

ties="expected" gives the exact expectation over all orders of equally distant results, ties="index" ranks them by
position in the database. exclude_self: query i is row i of the database and is left out for itself. per_query=True
gives float64 [Q], of the kind of `query`, instead of the mean over queries. Bad arguments raise ValueError or
TypeError, naming function and value.

`retrieval` and `exhaustive_retrieval` take graded relevance by name instead of labels, qrels, and `read_qrels` and
`read_run` read the files of TREC and BEIR. They always average over the orders of ties.
"""

from typing import TYPE_CHECKING

from fasthash._moved import moved_names
from fasthash.metrics.graded import average_cumulative_gain, hierarchical_precision, ndcg
from fasthash.metrics.judged import exhaustive_retrieval, retrieval
from fasthash.metrics.precision import (
    PrecisionRecallCurve,
    mean_average_precision,
    precision_at,
    precision_recall_curve,
    precision_within_radius,
    recall_at,
)
from fasthash.metrics.qrels import read_qrels, read_run

__all__ = [
    "PrecisionRecallCurve",
    "average_cumulative_gain",
    "exhaustive_retrieval",
    "hierarchical_precision",
    "mean_average_precision",
    "ndcg",
    "precision_at",
    "precision_recall_curve",
    "precision_within_radius",
    "read_qrels",
    "read_run",
    "recall_at",
    "retrieval",
]
if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
