"""asymmetric_topk on a GPU, against the CPU, bit by bit; and what can be told of it without one.

The kernels' logic is tested in test_asymmetric_emulated.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fasthash import HammingIndex, SearchResult, _core, _ops, asymmetric_topk

METRICS = ["l1", "dot", "cosine", "l2"]
CUDA = torch.cuda.is_available() and bool(_ops.cuda_architectures())
needs_gpu = pytest.mark.skipif(not CUDA, reason="needs a GPU")


def codes_of(rows: int, bits: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(bits)
    return torch.randint(0, 256, (rows, (bits + 7) // 8), dtype=torch.uint8, generator=generator)


def queries_of(count: int, bits: int, metric: str = "l1") -> torch.Tensor:
    make = torch.rand if metric == "l1" else torch.randn
    return make(count, bits, generator=torch.Generator().manual_seed(1))


def found_on_gpu(queries: torch.Tensor, database: torch.Tensor, k: int, **options: Any) -> SearchResult:
    there = {name: o.cuda() if isinstance(o, torch.Tensor) else o for name, o in options.items()}
    return SearchResult(*(part.cpu() for part in asymmetric_topk(queries.cuda(), database.cuda(), k, **there)))


def check(queries: torch.Tensor, database: torch.Tensor, k: int, **options: Any) -> None:
    expected, found = asymmetric_topk(queries, database, k, **options), found_on_gpu(queries, database, k, **options)
    assert torch.equal(found.distances, expected.distances)
    assert torch.equal(found.ids, expected.ids)


@pytest.mark.skipif(not _ops.cuda_architectures(), reason="built without CUDA")
@pytest.mark.parametrize("queries", [1, 1000, 100_000])
@pytest.mark.parametrize(
    ("bits", "rows", "k"), [(64, 10**9, 10), (256, 10**8, 1000), (1024, 10**6, 10), (64, 10**5, 1)]
)
def test_the_workspace_has_at_most_64_mib(bits: int, rows: int, k: int, queries: int) -> None:
    sizes = queries, bits, rows, bits // 8, bits // 8
    problem = _core.AsymmetricProblem(0, _core.Dtype.float32, 0, 0, 0, *sizes, 0, [])
    assert 0 < _core.asymmetric_topk_cuda_workspace(problem, k) <= 64 << 20
    assert _core.asymmetric_topk_cuda_workspace(problem, rows) <= (64 << 20) + 13 * rows  # what one query needs


@needs_gpu
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bits", [1, 9, 61, 64, 128, 250, 256, 520, 1024, 4200])
def test_cuda_asymmetric_widths(bits: int, metric: str) -> None:
    """Small enough for the sanitizers."""
    database = codes_of(9000, bits)
    scale = (torch.rand(9000, generator=torch.Generator().manual_seed(2)) * 2).half()
    mask = torch.rand(9000, generator=torch.Generator().manual_seed(3)) < 0.3
    for count in (1, 40):
        queries = queries_of(count, bits, metric)
        check(queries, database, 20, metric=metric)
        check(queries, database, 20, metric=metric, filter=mask, code_scale=None if metric == "l1" else scale)


@needs_gpu
@pytest.mark.parametrize(("rows", "bits", "k"), [(1_000_001, 64, 10), (300_000, 256, 1000), (200_000, 37, 3000)])
def test_cuda_asymmetric_topk_of_many_codes(rows: int, bits: int, k: int) -> None:
    """At the sizes of stretches on a GPU; codes from far to near, few different codes, and a filter."""
    database, queries = codes_of(rows, bits), queries_of(9, bits)
    order = asymmetric_topk(queries[:1], database, rows).ids[0].flip(0)
    for codes in (database, database[order], database[torch.arange(rows) % 3]):
        check(queries, codes, k)
    check(queries, database, k, filter=torch.rand(rows, generator=torch.Generator().manual_seed(3)) < 0.3)


@needs_gpu
def test_cuda_asymmetric_index_and_graph() -> None:
    """An index on a GPU, and a search in a CUDA graph."""
    codes, queries = codes_of(50_000, 64), queries_of(5, 64)
    on_cpu, on_gpu = HammingIndex(64), HammingIndex(64, "cuda")
    for index in (on_cpu, on_gpu):
        index.add(codes)
        index.remove(np.arange(0, 50_000, 3))
    expected, found = (index.search(queries, 9, rescore="all") for index in (on_cpu, on_gpu))
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.distances, expected.distances)
    given, database = queries.cuda(), codes.cuda()
    op = torch.ops.fasthash.asymmetric_topk
    warm = op(given, database, None, None, 9, "l1")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = op(given, database, None, None, 9, "l1")
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured[1], warm[1])
