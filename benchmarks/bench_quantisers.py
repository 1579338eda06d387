"""How many of the ten nearest by inner product do codes of 1 to 4 bits a dimension find, with float queries?

    python benchmarks/bench_quantisers.py [--sets captions clinc150] [--queries 1000] [--seeds 3] [--name quantisers]

Sentence embeddings of length 1, 384 dimensions: captions (coco_captions_val2017) and short texts (clinc150). Random
rows are the queries, the others the database. R@10: the part of the ten nearest of the floats that are among the first
ten by code. Scores are products of float queries and unpacked bits, times the float16 scales: what a scan of all codes
computes. Beside this package's methods stand, marked "as published", forms that need more than one number a code or
that this package changed, and faiss IndexRaBitQ behind a random rotation. Checks that each estimate is that of its
formula. Writes benchmarks/results/NAME.json and NAME.md. About 20 minutes on one core, half of them in faiss.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kit
import numpy as np
import torch
from torch import Tensor

from fasthash import baselines, unpack_bits
from fasthash.baselines import GridCodes, LinearCodes, grid_osq

try:
    import faiss
except ImportError:
    faiss = None

SETS = {"captions": "coco_captions_val2017", "clinc150": "clinc150"}
K = 10
Line = tuple[str, int, int, list[float]]  # method, bits a code, bytes of other numbers, R@10 of each seed


def read(folder: Path, queries: int) -> tuple[Tensor, Tensor]:
    """Queries [Q, F] and database [N, F] of one set, float32 rows of length 1."""
    rows = torch.from_numpy(np.load(folder / "minilm_l6_v2_f16.npz")["embedding"].astype(np.float32))
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return rows[:queries], rows[queries:]


def recall(found: Tensor, wanted: Tensor) -> float:
    return float((found[:, :, None] == wanted[:, None]).any(2).float().mean())


def signs(codes: Tensor, bits: int) -> Tensor:
    return 2.0 * unpack_bits(codes, bits).float() - 1.0


def scored(codes: GridCodes | LinearCodes, Q: Tensor, X: Tensor, **metric: str) -> Tensor:
    """Estimates [Q, N] of inner products, from codes and float16 scales."""
    packed = codes.encode(X)
    return codes.queries(Q, **metric) @ signs(packed, codes.bits).T * codes.scales(X, packed).float()


def points(codes: GridCodes, X: Tensor) -> tuple[Tensor, Tensor]:
    """Grid points [N, F] and lengths [N, 1] of rows: what estimates of the published forms are made of."""
    planes = signs(codes.encode(X), codes.bits).unflatten(1, (len(codes.weights), -1))
    lengths = torch.linalg.vector_norm(X - codes.mean, dim=1, keepdim=True)
    return torch.einsum("p,npf->nf", codes.weights, planes), lengths


def linear(Q: Tensor, X: Tensor, _: int, find: Callable[[Tensor], float]) -> Iterator[Line]:
    features = X.shape[1]
    plain = LinearCodes(X.mean(0), torch.eye(features)).in_unit_of(X)
    fitted = {
        "sign": [plain],
        "ITQ": [baselines.itq(X, features)],
        "ITQ, 256 bits": [baselines.itq(X, 256)],
    }
    for name, all_codes in fitted.items():
        bits = all_codes[0].bits
        results: dict[str, list[float]] = {
            "Hamming": [],
            "float query": [],
            "float query less the mean": [],
            "scale": [],
        }
        for codes in all_codes:
            ones = signs(codes.encode(X), bits)
            results["Hamming"].append(find(signs(codes.encode(Q), bits) @ ones.T))
            results["float query"].append(find(codes.queries(Q, metric="dot") @ ones.T))
            results["float query less the mean"].append(find(codes.transform(Q) @ ones.T))
            results["scale"].append(find(scored(codes, Q, X, metric="dot")))
        yield f"{name}, Hamming", bits, 0, results["Hamming"]
        yield f"{name}, float query", bits, 0, results["float query"]
        yield f"{name}, float query less the mean", bits, 0, results["float query less the mean"]
        yield f"{name}, float query and scale", bits, 2, results["scale"]


def grids(Q: Tensor, X: Tensor, seeds: int, find: Callable[[Tensor], float]) -> Iterator[Line]:
    for planes in (1, 2, 3, 4):
        bits = planes * X.shape[1]
        for function in (baselines.rabitq, baselines.turboquant):
            found = [find(scored(function(X, planes, seed=seed), Q, X)) for seed in range(seeds)]
            yield function.__name__, bits, 2, found
        yield "osq", bits, 2, [find(scored(baselines.osq(X, planes), Q, X))]


def published(Q: Tensor, X: Tensor, seeds: int, find: Callable[[Tensor], float]) -> Iterator[Line]:
    """Forms as published, their numbers in float32, which this package changes."""
    features = X.shape[1]
    for planes in (1, 2, 3, 4):
        bits = planes * features
        by_length, by_codebook, by_sketch, with_mean = [], [], [], []
        for seed in range(seeds):
            codes = baselines.turboquant(X, planes, seed=seed)
            grid, lengths = points(codes, X)
            turned = Q @ codes.rotation
            by_length.append(find(turned @ (grid * lengths).T))
            directions = codes.transform(X) / lengths
            best = codebook(features, planes)
            by_codebook.append(
                find(turned @ (best[torch.bucketize(directions, (best[1:] + best[:-1]) / 2)] * lengths).T)
            )
            if planes > 1:
                by_sketch.append(find(turned_and_sketched(directions, turned, planes, lengths, seed)))
            codes = baselines.rabitq(X, planes, seed=seed)
            towards_mean = (X - codes.mean) @ codes.mean
            with_mean.append(find(scored(codes, Q, X) - scored(codes, codes.mean[None], X) + towards_mean))
        yield "RaBitQ with <mean, x> beside the scale, as published", bits, 6, with_mean
        yield "TurboQuant for squared error, as published", bits, 4, by_codebook
        yield "turboquant, times the length", bits, 4, by_length
        if by_sketch:
            yield 'TurboQuant "prod", as published', bits, 8, by_sketch
        rows = X - X.mean(0)
        rounded = two_ended(rows, planes)
        yield "OSQ with an interval [a, b], as published", bits, 8, [find(Q @ rounded.T)]
        exact = rounded * ((rows * rows).sum(1) / (rows * rounded).sum(1))[:, None]
        yield "OSQ with an interval [a, b] and the correction of RaBitQ", bits, 8, [find(Q @ exact.T)]


@functools.cache
def codebook(features: int, planes: int) -> Tensor:
    """The levels of Lloyd-Max for a coordinate of a random direction, of `features` dimensions, ascending."""
    angles = torch.linspace(-1, 1, 20_001, dtype=torch.float64) * min(math.pi / 2, 9 / features**0.5)
    values, mass = angles.sin(), ((features - 2) * angles.cos().log()).exp()
    levels = torch.linspace(-1, 1, 2**planes, dtype=torch.float64) * grid_osq.FIRST[planes - 1] / features**0.5
    for _ in range(1000):
        cells = torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)
        sums, masses = (torch.zeros_like(levels).index_add_(0, cells, v) for v in (mass * values, mass))
        levels = sums / masses
    return levels.float()


def turned_and_sketched(directions: Tensor, turned: Tensor, planes: int, lengths: Tensor, seed: int) -> Tensor:
    """TurboQuant's "prod": one bit less for the codebook, and signs of a random map of what it leaves (QJL)."""
    features = directions.shape[1]
    best = codebook(features, planes - 1)
    coarse = best[torch.bucketize(directions, (best[1:] + best[:-1]) / 2)]
    left = directions - coarse
    noise = torch.randn(features, features, generator=torch.Generator().manual_seed(1000 + seed))
    sketch = torch.where(left @ noise.T > 0, 1.0, -1.0) * torch.linalg.vector_norm(left, dim=1, keepdim=True)
    return (turned @ coarse.T + (math.pi / 2) ** 0.5 / features * (turned @ noise.T) @ sketch.T) * lengths.T


def two_ended(rows: Tensor, planes: int) -> Tensor:
    """Rows less the mean on evenly spaced levels from a to b, by coordinate descent, as in Lucene, [N, F]."""
    rows, across, largest = rows.double(), grid_osq.ACROSS, 2**planes - 1
    squares = rows.square().sum(1, keepdim=True)
    deviation, middle = rows.std(1, correction=0, keepdim=True), rows.mean(1, keepdim=True)
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    a, b = ((middle + sign * grid_osq.FIRST[planes - 1] * deviation).clamp(low, high) for sign in (-1.0, 1.0))

    def parts(a: Tensor, b: Tensor) -> Tensor:
        return ((torch.minimum(torch.maximum(rows, a), b) - a) * (largest / (b - a))).round() / largest

    def loss(a: Tensor, b: Tensor) -> Tensor:
        errors = rows - (a + (b - a) * parts(a, b))
        along = (rows * errors).sum(1, keepdim=True).square() / squares
        return (1 - across) * along + across * errors.square().sum(1, keepdim=True)

    value, goes_on = loss(a, b), torch.ones_like(squares, dtype=torch.bool)
    for _ in range(grid_osq.ROUNDS):
        s = parts(a, b)
        xa, xb = (rows * (1 - s)).sum(1, keepdim=True), (rows * s).sum(1, keepdim=True)
        aa, ab, bb = (p.sum(1, keepdim=True) for p in ((1 - s) ** 2, (1 - s) * s, s**2))
        m0, m1, m2 = (
            (1 - across) / squares * u * v + across * w for u, v, w in ((xa, xa, aa), (xa, xb, ab), (xb, xb, bb))
        )
        determinant = m0 * m2 - m1 * m1
        new_a, new_b = (m2 * xa - m1 * xb) / determinant, (m0 * xb - m1 * xa) / determinant
        new = loss(new_a, new_b)
        goes_on &= new <= value
        a, b, value = (torch.where(goes_on, after, now) for after, now in ((new_a, a), (new_b, b), (new, value)))
    return (a + (b - a) * parts(a, b)).float()


def peers(Q: Tensor, X: Tensor, seeds: int, wanted: Tensor) -> Iterator[Line]:
    for planes in (1, 2, 4) if faiss is not None else ():
        found = []
        for seed in range(min(seeds, 1)):  # slow
            index = faiss.IndexRaBitQ(X.shape[1], faiss.METRIC_INNER_PRODUCT, planes)
            index.qb = 0  # queries stay real numbers
            rotation = faiss.RandomRotationMatrix(X.shape[1], X.shape[1])
            rotation.init(seed)
            whole = faiss.IndexPreTransform(rotation, index)
            whole.train(X.numpy())
            whole.add(X.numpy())
            found.append(recall(torch.from_numpy(whole.search(Q.numpy(), K)[1]), wanted))
        extra = index.code_size - math.ceil(planes * X.shape[1] / 8)
        yield "faiss IndexRaBitQ", planes * X.shape[1], extra, found


def check(Q: Tensor, X: Tensor) -> None:
    """An estimate of a row by itself is its own length, in RaBitQ: the bits, weights and scales fit one another."""
    few = X[:500]
    for function in (baselines.rabitq, baselines.turboquant):
        codes = function(X, 2)
        own = scored(codes, few, few).diagonal()
        exact = ((few - codes.mean) * few).sum(1)
        error = float((own - exact).abs().mean() / exact.mean())
        assert error < 0.05, f"{function.__name__}: a row's estimate of itself is off by {error:.3f}"


def measure(folder: Path, queries: int, seeds: int) -> list[dict[str, Any]]:
    Q, X = read(folder, queries)
    check(Q, X)
    wanted = (Q @ X.T).topk(K, 1).indices
    lines = []
    for part in (linear, grids, published, peers):
        find = wanted if part is peers else (lambda scores: recall(scores.topk(K, 1).indices, wanted))
        for method, bits, extra, found in part(Q, X, seeds, find):
            lines.append({"method": method, "bits": bits, "extra_bytes": extra, "recall": found})
            print(f"{method:50s} {bits:5d} {statistics.mean(found):.4f}", flush=True)
    return lines


def table(result: dict[str, Any]) -> str:
    """Mean R@10 over seeds, and the spread (standard deviation) where there are several."""
    names = list(result["sets"])
    text = f"R@10 by float queries, in %: {result['queries']:,} queries, "
    text += f"{result['seeds']} random rotations (faiss: 1).\n\n"
    text += f"| method | bits | bytes | {' | '.join(names)} |\n|---|---|---|{'---|' * len(names)}\n"
    for lines in zip(*result["sets"].values(), strict=True):
        cells = []
        for line in lines:
            spread = f" ±{100 * statistics.stdev(line['recall']):.1f}" if len(line["recall"]) > 1 else ""
            cells.append(f"{100 * statistics.mean(line['recall']):.1f}{spread}")
        size = math.ceil(lines[0]["bits"] / 8) + lines[0]["extra_bytes"]
        text += f"| {lines[0]['method']} | {lines[0]['bits']} | {size} | {' | '.join(cells)} |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--name", default="quantisers")
    options = parser.parse_args()
    sets = {name: measure(options.data / SETS[name], options.queries, options.seeds) for name in options.sets}
    result = {"machine": kit.machine(), "queries": options.queries, "seeds": options.seeds, "sets": sets}
    kit.write_json(options.name, json.loads(json.dumps(result)))
    (kit.RESULTS / f"{options.name}.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
