"""Forks a child for each public function, once torch's OpenMP threads run in the parent, and waits 10 seconds for it.

python tests/fork_all.py            prints the names that did not end well, one a line; status 1 where there are any
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fasthash
from fasthash import baselines, cluster, distributed, embeddings, evaluate, metrics, report, targets
from fasthash import codes as packing
from fasthash import losses as published
from fasthash.losses.published import LOSSES
from fasthash.train import HashHead, Objective, train

SECONDS = 10
# Results, errors, and what works on names alone.
PLAIN = {
    "DuplicateGroups",
    "EmbeddingResult",
    "Hierarchy",
    "IndexFolderError",
    "KnnGraph",
    "Neighbors",
    "Pairs",
    "PrecisionRecallCurve",
    "RangeResult",
    "SearchResult",
    "encode",  # of cluster: its work is done by processes that Ray starts
    "ShardError",
    "ShardStats",
    "ShardTimeout",
    "ShardedIndex",
}

rng = np.random.default_rng(0)
X = rng.normal(size=(4000, 96)).astype(np.float32)
y = rng.integers(0, 20, 4000)
codes = rng.integers(0, 256, (20_000, 8), dtype=np.uint8)
z = torch.rand(512, 64)
u = torch.randn(512, 64)
labels = torch.from_numpy(y[:512])
between = targets.class_distances(list(range(20)))
hasher = fasthash.Hasher(16, epochs=1, progress=False).fit(X, y)
cimon = fasthash.CIMON(16, clusters=5, epochs=1, progress=False).fit(X[:200])  # scikit-learn takes long to import
index = fasthash.HammingIndex(64)
index.add(codes)
scaled = fasthash.HammingIndex(64)
scaled.add(codes, code_scale=np.ones(len(codes), np.float16))
named = fasthash.HammingIndex(64)
named.add(codes, keys=[f"{row}" for row in range(len(codes))])
folder = Path(tempfile.mkdtemp())
fasthash.HammingIndex.build(folder / "index", codes, progress=False)
hasher.save(folder / "hasher")
linear = baselines.lsh(X, 32)
linear.save(folder / "linear")
baselines.rabitq(X).save(folder / "grid")
qrels = {query: {int(row): 1 for row in rng.choice(20_000, 5, replace=False)} for query in range(500)}
(folder / "qrels.trec").write_text("0 0 1 1\n")
(folder / "run.trec").write_text("0 Q0 1 1 0.5 run\n")
counts = rng.poisson(0.2, (1000, 200))
edges = rng.integers(0, 500, (3000, 2))
many_hot = torch.from_numpy(rng.integers(0, 2, (3000, 30)))


def backward(loss: Callable[..., Any], *arguments: Any) -> None:
    points = arguments[0].clone().requires_grad_()
    loss(points, *arguments[1:]).backward()


def a_loop() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(96, 256), torch.nn.ReLU(), HashHead(256, 32))
    loader = [(torch.from_numpy(X[:512]), labels)] * 3
    train(model, loader, Objective(32, classes=20, distance=between), epochs=1, progress=False)


def changes() -> None:
    with fasthash.HammingIndex.open(folder / "index", writable=True) as own:
        own.remove(range(1000))
        own.compact()
        own.build_mih()
        own.verify()
        own.export(folder / "codes.npy")


def published_loss(name: str) -> Callable[[], None]:
    def run() -> None:
        fasthash.Hasher(16, loss=name, epochs=1, progress=False).fit(X[:1000], X[:1000] if name == "sdc" else y[:1000])

    return run


CASES: dict[str, Callable[[], Any]] = {
    "pack_bits": lambda: fasthash.pack_bits(X),
    "unpack_bits": lambda: fasthash.unpack_bits(codes, 64),
    "asymmetric_topk": lambda: fasthash.asymmetric_topk(z.numpy(), codes, 10),
    "hamming_topk": lambda: fasthash.hamming_topk(codes[:300], codes, 10),
    "hamming_range": lambda: fasthash.hamming_range(codes[:300], codes, 20),
    "hamming_distances": lambda: fasthash.hamming_distances(codes[:300], codes),
    "hamming_histogram": lambda: fasthash.hamming_histogram(codes[:300], codes),
    "LinearDecoder.fit": lambda: fasthash.LinearDecoder.fit(X, codes[:4000], 64),
    "maxsim_topk": lambda: fasthash.maxsim_topk(codes[:300], range(0, 301, 30), codes, range(0, 20_001, 20), 10),
    "hamming_topk, weighted": lambda: fasthash.hamming_topk(codes[:300], codes, 10, bit_weights=[(32, 3), (32, 1)]),
    "hamming_pairs": lambda: fasthash.hamming_pairs(codes, 12),
    "hamming_pairs, weighted": lambda: fasthash.hamming_pairs(codes, 12, bit_weights=[(44, 4), (20, 1)]),
    "duplicate_groups": lambda: fasthash.duplicate_groups(codes, 12),
    "distributed.topk": lambda: distributed.topk(codes[:300], codes, 10),
    "knn_graph": lambda: fasthash.knn_graph(codes[:2000], 3),
    "HammingIndex.search": lambda: index.search(codes[:300], 10),
    "HammingIndex.search, all": lambda: index.search(z.numpy(), 10, rescore="all"),
    "HammingIndex.range_search": lambda: index.range_search(codes[:300], 20),
    "HammingIndex.pairs": lambda: index.pairs(12),
    "HammingIndex.write_pairs": lambda: index.write_pairs(folder / "pairs.parquet", 12),
    "HammingIndex.groups": lambda: index.groups(12),
    "HammingIndex.add": lambda: index.add(codes),
    "HammingIndex.add, keys": lambda: named.add(codes, keys=[f"{row}" for row in range(len(codes))], replace=True),
    "HammingIndex.remove": lambda: index.remove(range(1000)),
    "HammingIndex.split": lambda: index.split(folder / "shards", 3, progress=False),
    "merge_topk": lambda: cluster.merge_topk(
        [np.zeros((300, 10), np.int32)] * 4, [np.zeros((300, 10), np.int64)] * 4, 10
    ),
    "HammingIndex.save": lambda: index.save(folder / "saved"),
    "HammingIndex.build": lambda: fasthash.HammingIndex.build(folder / "built", codes, mih=True, progress=False),
    "EmbeddingIndex": lambda: fasthash.EmbeddingIndex("rabitq", refine="int8").add(X),
    "EmbeddingIndex.build": lambda: fasthash.EmbeddingIndex.build(folder / "rows", X, "itq", progress=False).search(
        X, 5
    ),
    "against_exact": lambda: embeddings.against_exact(X, X[:100], "lsh", at=[10]),
    "Hasher.fit": lambda: fasthash.Hasher(16, epochs=1, progress=False).fit(X, y),
    "Hasher.fit X": lambda: fasthash.Hasher(16, epochs=1, progress=False).fit(X),
    "Hasher.transform": lambda: hasher.transform(X),
    "Hasher.encode": lambda: hasher.encode(X),
    "Hasher.queries": lambda: hasher.queries(X),
    "Hasher.scales": lambda: hasher.scales(X, hasher.encode(X)),
    "Hasher.score": lambda: hasher.score(X, y),
    "Hasher.load": lambda: fasthash.Hasher.load(folder / "hasher").save(folder / "again"),
    "AsymmetricHasher": lambda: fasthash.AsymmetricHasher(16, rounds=1, progress=False).fit(X, y).encode(X),
    "CIMON": lambda: cimon.fit(X[:200]).encode(X),
    "CrossModalHasher": lambda: fasthash.CrossModalHasher(16, epochs=1, progress=False).fit(X, X, y).encode_first(X),
    "refine_by_affinity": lambda: targets.refine_by_affinity(X[:1000], np.where(np.arange(1000) < 60, y[:1000], -1)),
    "TextHasher": lambda: fasthash.TextHasher(16, epochs=1, progress=False).fit(counts, y[:1000]).encode(counts),
    "GraphHasher": lambda: fasthash.GraphHasher(16, epochs=1, progress=False).fit(edges).recommend([0, 1], k=5),
    "HammingIndex.open": changes,
    "HammingIndex.code_scale_of": lambda: scaled.code_scale_of(scaled.ids),
    "HammingIndex.get": lambda: index.get(index.ids),
    "check_codes": lambda: packing.check_codes(torch.from_numpy(codes), 64, "f"),
    "code_bytes": lambda: packing.code_bytes(64),
    "from_signed": lambda: packing.from_signed(codes.view(np.int8)),
    "to_signed": lambda: packing.to_signed(codes),
    "code_statistics": lambda: evaluate.code_statistics(codes),
    "overlap_at": lambda: evaluate.overlap_at(codes[:500], codes[:4000], X[:500], X, y[:500], y, 10),
    "class_distances": lambda: targets.class_distances(list(range(500))),
    "class_levels": lambda: targets.class_levels(between),
    "label_distances": lambda: targets.label_distances(torch.from_numpy(y), between),
    "multilabel_distances": lambda: targets.multilabel_distances(many_hot),
    "shared_label_distances": lambda: targets.shared_label_distances(many_hot),
    "default_weight": lambda: published.default_weight(torch.rand(1000, 1000)),
    "code_distance_bounds": lambda: published.code_distance_bounds(64, 150),
    "GridCodes": lambda: baselines.GridCodes.load(folder / "grid").queries(X),
    "LinearCodes": lambda: baselines.LinearCodes.load(folder / "linear").queries(X),
    "KLLoss": lambda: backward(published.KLLoss(), z),
    "KoLeoLoss": lambda: backward(published.KoLeoLoss(), z),
    "ListwiseLoss": lambda: backward(published.ListwiseLoss(), z, targets.label_distances(labels, between)),
    "SimilarityLoss": lambda: backward(published.SimilarityLoss(), z, targets.label_distances(labels, between)),
    "kl_loss": lambda: backward(fasthash.kl_loss, z),
    "koleo_loss": lambda: backward(fasthash.koleo_loss, z),
    "listwise_loss": lambda: backward(fasthash.listwise_loss, z, targets.label_distances(labels, between)),
    "similarity_loss": lambda: backward(fasthash.similarity_loss, z, targets.label_distances(labels, between)),
    "nearest": lambda: fasthash.nearest(u, k=3),
    "entropy": lambda: fasthash.entropy(u),
    "kl_divergence": lambda: fasthash.kl_divergence(u, z),
    "embedding_distances": lambda: targets.embedding_distances(torch.from_numpy(X[:1000])),
    "lsh": lambda: baselines.lsh(X, 32).encode(X),
    "pca_sign": lambda: baselines.pca_sign(X, 32).encode(X),
    "itq": lambda: baselines.itq(X, 32).encode(X),
    "rabitq": lambda: baselines.rabitq(X, 2).encode(X),
    "osq": lambda: baselines.osq(X, 2).encode(X),
    "turboquant": lambda: baselines.turboquant(X, 2).encode(X),
    "mean_average_precision": lambda: metrics.mean_average_precision(codes[:500], codes[:4000], y[:500], y),
    "mean_average_precision of floats": lambda: metrics.mean_average_precision(X[:500], X, y[:500], y),
    "hierarchical_precision": lambda: metrics.hierarchical_precision(X[:500], X, y[:500], y, 1 - between.numpy()),
    "precision_at": lambda: metrics.precision_at(X[:500], X, y[:500], y, 10),
    "recall_at": lambda: metrics.recall_at(X[:500], X, y[:500], y, 10),
    "ndcg": lambda: metrics.ndcg(X[:500], X, y[:500], y, 10),
    "average_cumulative_gain": lambda: metrics.average_cumulative_gain(X[:500], X, y[:500], y, 10),
    "precision_within_radius": lambda: metrics.precision_within_radius(codes[:500], codes[:4000], y[:500], y, 20),
    "retrieval": lambda: metrics.retrieval(fasthash.hamming_topk(codes[:500], codes, 50), qrels),
    "exhaustive_retrieval": lambda: metrics.exhaustive_retrieval(codes[:500], codes, range(500), range(20_000), qrels),
    "exhaustive_retrieval of floats": lambda: metrics.exhaustive_retrieval(
        X[:9], X, range(9), range(4000), {1: {2: 1}}
    ),
    "read_qrels": lambda: metrics.read_qrels(folder / "qrels.trec"),
    "read_run": lambda: metrics.read_run(folder / "run.trec"),
    "precision_recall_curve": lambda: metrics.precision_recall_curve(codes[:500], codes[:4000], y[:500], y),
    "Report": lambda: report.Report(codes[:2000], query_labels=y[:2000]),
    "evaluate": lambda: evaluate.evaluate(codes[:500], codes[:4000], y[:500], y),
    "train": a_loop,
    **{f"Hasher(loss={name!r}).fit": published_loss(name) for name in LOSSES},
}


def missing() -> list[str]:
    """Public functions without a case."""
    places = (fasthash, cluster, metrics, targets, published, packing, baselines, embeddings, evaluate)
    public: set[str] = set()
    for place in places:
        own = [n for n, value in vars(place).items() if getattr(value, "__module__", "") == place.__name__]
        names = getattr(place, "__all__", own)
        public |= {name for name in names if name[0] != "_" and callable(getattr(place, name))}
    covered = {name.split(" ")[0].split(".")[0] for name in CASES}
    return sorted(public - covered - PLAIN)


def ends_well(run: Callable[[], Any]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            run()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def main() -> int:
    torch.set_num_threads(2)
    (torch.rand(2000, 2000) @ torch.rand(2000, 2000)).exp().sum()  # OpenMP's threads run now
    if not ends_well(lambda: None):
        return 2
    failed = [f"{name} has no case" for name in missing()]
    failed += [name for name, run in CASES.items() if not ends_well(run)]
    print("\n".join(failed))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
