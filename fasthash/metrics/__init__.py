"""Retrieval metrics, exact over tied distances: for codes from per-distance counts, for embeddings from rankings."""

from fasthash.metrics.ranking import (
    PrecisionRecallCurve,
    hierarchical_precision,
    mean_average_precision,
    ndcg,
    precision_at,
    precision_recall_curve,
    precision_within_radius,
    recall_at,
)

__all__ = [
    "PrecisionRecallCurve",
    "hierarchical_precision",
    "mean_average_precision",
    "ndcg",
    "precision_at",
    "precision_recall_curve",
    "precision_within_radius",
    "recall_at",
]
