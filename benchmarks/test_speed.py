"""Each op against plain torch and, where it is installed, faiss: a table for each op, in two minutes on two cores.

    pytest benchmarks/test_speed.py
    pytest benchmarks/test_speed.py -k "fasthash and hamming_topk"

Every result is checked against the oracle before it is timed. Numbers in brackets are ratios to the best of the table.
CONTRIBUTING.md says how to compare two versions of the code. The studies with larger sizes, more peers and written
results are the bench_*.py files.

Plain torch searches codes by a product of matrices. Its codes are unpacked to +1 and -1 in float32 before the clock
starts: 32 times the memory.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench_kl import cdist_gather
from kit import PAUSE
from torch import Tensor
from torch.testing import assert_close

import fasthash
from fasthash import reference

try:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
except ImportError:
    faiss = None

Call = Callable[[], Any]
Timed = Callable[[str, Call, Callable[[Any], None]], None]

SECONDS = 1.0  # for each benchmark, pauses included
FEWEST, MOST = 7, 40  # rounds

B, D = 512, 64  # of the losses
N, Q, K = 50_000, 128, 10  # of searches
CHECKED = 4  # queries that the oracle answers: it takes 8 bytes for each byte of each pair

TORCH = pytest.mark.parametrize("library", ["fasthash", "torch"])
FAISS = pytest.param("faiss", marks=pytest.mark.skipif(faiss is None, reason="faiss is not installed"))
TORCH_AND_FAISS = pytest.mark.parametrize("library", ["fasthash", "torch", FAISS])


@pytest.fixture
def timed(benchmark: Any) -> Timed:
    """Checks the result of a call, then times it.

    There is a pause before each round: OpenMP's threads spin for some milliseconds after a call of torch or faiss, on
    cores that the next call needs.
    """

    def run(group: str, call: Call, check: Callable[[Any], None]) -> None:
        benchmark.group = group
        check(call())
        rounds = 1
        if benchmark.enabled:
            time.sleep(PAUSE)
            start = time.perf_counter()
            call()
            rounds = int(SECONDS / (time.perf_counter() - start + PAUSE))
        rounds = min(MOST, max(FEWEST, rounds))
        benchmark.pedantic(call, setup=lambda: time.sleep(PAUSE), rounds=rounds, warmup_rounds=1)

    return run


def points(seed: int, rows: int = B) -> Tensor:
    return torch.rand(rows, D, generator=torch.Generator().manual_seed(seed))


def codes(count: int, bits: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, bits // 8), dtype=np.uint8))


def signs(packed: Tensor) -> Tensor:
    """Codes [N, W] as float32 [N, 8 W], +1 for a bit that is set and -1 for one that is not."""
    return torch.from_numpy(2 * np.unpackbits(packed.numpy(), axis=1).astype(np.float32) - 1)


def flat(database: Tensor) -> Any:
    index = faiss.IndexBinaryFlat(8 * database.shape[1])
    index.add(database.numpy())
    return index


def step(loss: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """A loss and its gradient."""
    own = z.detach().requires_grad_()
    value = loss(own)
    value.backward()
    assert own.grad is not None
    return value.detach(), own.grad


@TORCH
@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "forward_backward"])
def test_kl_loss(timed: Timed, gradient: bool, library: str) -> None:
    z, target = points(0), points(1)
    losses = {"fasthash": lambda z: fasthash.kl_loss(z, target), "torch": lambda z: cdist_gather(z, target, 1)}
    loss = losses[library]
    value, slope = step(lambda z: reference.kl_loss(z, target.double()), z.double())

    def check(found: Any) -> None:
        assert_close((found[0] if gradient else found).double(), value, rtol=1e-4, atol=1e-5)
        if gradient:
            assert_close(found[1].double(), slope, rtol=1e-3, atol=1e-6)

    title = f"kl_loss, forward{' and backward' if gradient else ''}: B = M = {B}, D = {D}, p = 1"
    timed(title, (lambda: step(loss, z)) if gradient else (lambda: loss(z)), check)


@TORCH
def test_nearest(timed: Timed, library: str) -> None:
    x, y = points(0, 2048), points(1, 2048)
    calls: dict[str, Call] = {
        "fasthash": lambda: fasthash.nearest(x, y, p=2, k=K).distances,
        "torch": lambda: torch.cdist(x, y).topk(K, largest=False).values,
    }
    wanted = reference.nearest(x[:64].double(), y.double(), p=2, k=K)[0]

    def check(found: Tensor) -> None:
        assert_close(found[:64].double(), wanted, rtol=1e-4, atol=1e-4)

    timed(f"nearest: N = M = 2048, D = {D}, p = 2, k = {K}", calls[library], check)


@TORCH
def test_similarity_loss(timed: Timed, library: str) -> None:
    z, y = points(0), points(1)
    distance = torch.cdist(y, y)
    off = ~torch.eye(B, dtype=torch.bool)
    mean = distance[off].mean()
    weight = (0.1 / (0.1 + distance / mean)).square().masked_fill(~off, 0.0)

    def plain(z: Tensor) -> Tensor:
        return (weight * (torch.cdist(z, z, p=1) / (D / 2) - distance / mean).abs()).sum() / weight.sum()

    loss = {"fasthash": lambda z: fasthash.similarity_loss(z, distance, weight=weight), "torch": plain}[library]
    exact = distance.double(), weight.double(), D / 2, mean.double()
    value, slope = step(lambda z: reference.similarity_loss(z, *exact), z.double())

    def check(found: tuple[Tensor, Tensor]) -> None:
        assert_close(found[0].double(), value, rtol=1e-4, atol=1e-5)
        assert_close(found[1].double(), slope, rtol=1e-2, atol=1e-6)

    timed(f"similarity_loss, forward and backward: B = {B}, D = {D}", lambda: step(loss, z), check)


@functools.lru_cache(maxsize=1)  # one width at a time: the signs of 1,024 bits take 200 MB
def search(bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries and database, packed and as signs."""
    queries, database = codes(Q, bits, 0), codes(N, bits, 1)
    return queries, database, signs(queries), signs(database)


def plain_topk(query_signs: Tensor, database_signs: Tensor) -> tuple[Tensor, Tensor]:
    """Distances and positions of the K nearest; ties in any order."""
    found = (query_signs @ database_signs.T).topk(K)
    return (query_signs.shape[1] - found.values) / 2, found.indices


@TORCH_AND_FAISS
@pytest.mark.parametrize("bits", [64, 128, 256, 512, 1024])
def test_hamming_topk(timed: Timed, library: str, bits: int) -> None:
    queries, database, query_signs, database_signs = search(bits)
    calls: dict[str, Call] = {
        "fasthash": lambda: fasthash.hamming_topk(queries, database, K),
        "torch": lambda: plain_topk(query_signs, database_signs),
    }
    if library == "faiss":
        index, asked = flat(database), queries.numpy()
        calls["faiss"] = lambda: index.search(asked, K)
    distances, ids = reference.hamming_topk(queries[:CHECKED], database, K)

    def check(found: Any) -> None:
        assert torch.equal(torch.as_tensor(found[0])[:CHECKED].int(), distances)
        if library == "fasthash":  # the others leave the order of ties open
            assert torch.equal(found.ids[:CHECKED], ids)

    timed(f"hamming_topk, {bits:4d} bits: Q = {Q}, N = {N:,}, k = {K}", calls[library], check)


WEIGHTED = {
    "undivided": lambda bits: None,
    "2 groups": lambda bits: [(bits // 2, 3), (bits // 2, 1)],
    "8 groups": lambda bits: [(bits // 8, weight) for weight in (9, 1, 5, 12, 3, 7, 6, 2)],
}


@pytest.mark.parametrize("library", WEIGHTED)
@pytest.mark.parametrize("bits", [64, 128, 256])
def test_hamming_topk_weighted(timed: Timed, library: str, bits: int) -> None:
    """Weighted searches beside the undivided one, whose time is the unit of the numbers in brackets."""
    queries, database = search(bits)[:2]
    groups = WEIGHTED[library](bits)
    distances, ids = reference.hamming_topk(queries[:CHECKED], database[:20_000], K, bit_weights=groups)

    def check(found: Any) -> None:
        assert found.ids.shape == (Q, K)
        few = fasthash.hamming_topk(queries[:CHECKED], database[:20_000], K, bit_weights=groups)
        assert torch.equal(few.distances, distances)
        assert torch.equal(few.ids, ids)

    title = f"hamming_topk, weighted, {bits:4d} bits: Q = {Q}, N = {N:,}, k = {K}"
    timed(title, lambda: fasthash.hamming_topk(queries, database, K, bit_weights=groups), check)


@TORCH_AND_FAISS
def test_hamming_range(timed: Timed, library: str) -> None:
    bits, radius = 64, 18  # about 15 codes for each query
    queries, database, query_signs, database_signs = search(bits)

    def plain() -> tuple[Tensor, Tensor, Tensor]:
        products = query_signs @ database_signs.T
        inside = products >= bits - 2 * radius
        offsets = torch.nn.functional.pad(inside.sum(1).cumsum(0), (1, 0))
        return offsets, (bits - products[inside]) / 2, inside.nonzero()[:, 1]

    calls: dict[str, Call] = {
        "fasthash": lambda: fasthash.hamming_range(queries, database, radius),
        "torch": plain,
    }
    if library == "faiss":
        index, asked = flat(database), queries.numpy()
        calls["faiss"] = lambda: index.range_search(asked, radius + 1)  # faiss leaves the radius itself out
    wanted = reference.hamming_range(queries[:CHECKED], database, radius)

    def check(found: Any) -> None:
        offsets, distances, ids = (torch.as_tensor(part).long() for part in found)
        assert torch.equal(offsets[: CHECKED + 1], wanted[0])
        if library == "fasthash":
            assert torch.equal(distances[: offsets[CHECKED]], wanted[1].long())
            assert torch.equal(ids[: offsets[CHECKED]], wanted[2])
        for begin, end in zip(wanted[0][:-1], wanted[0][1:], strict=True):  # the others give a query's codes unordered
            own = sorted(zip(distances[begin:end].tolist(), ids[begin:end].tolist(), strict=True))
            assert own == list(zip(wanted[1][begin:end].tolist(), wanted[2][begin:end].tolist(), strict=True))

    timed(f"hamming_range, {bits} bits: Q = {Q}, N = {N:,}, radius = {radius}", calls[library], check)


@TORCH
def test_hamming_histogram(timed: Timed, library: str) -> None:
    bits = 64
    queries, database, query_signs, database_signs = search(bits)
    rows = (bits + 1) * torch.arange(Q)[:, None]

    def plain() -> Tensor:
        distances = ((bits - query_signs @ database_signs.T) / 2).long()
        return (distances + rows).view(-1).bincount(minlength=Q * (bits + 1)).view(Q, -1)

    calls: dict[str, Call] = {
        "fasthash": lambda: fasthash.hamming_histogram(queries, database)[0],
        "torch": plain,
    }
    wanted = reference.hamming_histogram(queries[:CHECKED], database)[0]

    def check(found: Tensor) -> None:
        assert torch.equal(found[:CHECKED], wanted)

    timed(f"hamming_histogram, {bits} bits: Q = {Q}, N = {N:,}", calls[library], check)


@pytest.mark.parametrize("library", ["fasthash", "torch", "numpy"])
def test_pack_bits(timed: Timed, library: str) -> None:
    bits = 256
    z = torch.rand(N, bits, generator=torch.Generator().manual_seed(0))
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)
    array = z.numpy()
    calls: dict[str, Call] = {
        "fasthash": lambda: fasthash.pack_bits(z),
        "torch": lambda: ((z > 0.5).view(N, -1, 8) * places).sum(-1, dtype=torch.uint8),
        "numpy": lambda: np.packbits(array > 0.5, axis=1),
    }
    wanted = sum((z[:, place::8] > 0.5).int() << (7 - place) for place in range(8))

    def check(found: Any) -> None:
        assert torch.equal(torch.as_tensor(found).int(), wanted)

    timed(f"pack_bits, {bits} bits: N = {N:,}", calls[library], check)


@TORCH_AND_FAISS
def test_index_search(timed: Timed, library: str) -> None:
    bits = 128
    queries, database, query_signs, database_signs = search(bits)
    ids = 7 * torch.arange(N) + 3
    index, asked = fasthash.HammingIndex(bits), queries.numpy()
    index.add(database, ids=ids)

    def plain() -> tuple[Tensor, Tensor]:
        distances, positions = plain_topk(query_signs, database_signs)
        return distances, ids[positions]

    calls: dict[str, Call] = {"fasthash": lambda: index.search(queries, K), "torch": plain}
    if library == "faiss":
        mapped = faiss.IndexBinaryIDMap(faiss.IndexBinaryFlat(bits))
        mapped.add_with_ids(database.numpy(), ids.numpy())
        calls["faiss"] = lambda: mapped.search(asked, K)
    distances, positions = reference.hamming_topk(queries[:CHECKED], database, K)

    def check(found: Any) -> None:
        assert torch.equal(torch.as_tensor(found[0])[:CHECKED].int(), distances)
        if library == "fasthash":
            assert torch.equal(found.ids[:CHECKED], ids[positions])

    timed(f"HammingIndex.search, {bits} bits: Q = {Q}, N = {N:,}, k = {K}", calls[library], check)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Tensor, Tensor, Path]:
    """Queries, a database with K codes at 1 to 4 bits from each, these distances, and the index with tables of it."""
    rng = np.random.default_rng(2)
    count, bits = 32, 64
    queries, database = codes(count, bits, 3), codes(1_000_000, bits, 4)
    distances = np.sort(rng.integers(1, 5, (count, K)), axis=1)
    flips = rng.permuted(np.arange(bits) < distances[..., None], axis=-1)
    near = queries.numpy()[:, None] ^ np.packbits(flips, axis=-1)
    database[torch.from_numpy(rng.choice(len(database), count * K, replace=False))] = torch.from_numpy(near).flatten(
        0, 1
    )
    folder = tmp_path_factory.mktemp("tables") / "index"
    fasthash.HammingIndex.build(folder, database, mih=True, progress=False)
    return queries, database, torch.from_numpy(distances).int(), folder


def close_search(library: str, queries: Tensor, database: Tensor, folder: Path) -> Call:
    if library == "torch":
        query_signs, database_signs = signs(queries), signs(database)
        return lambda: plain_topk(query_signs, database_signs)
    if library == "faiss":
        other, asked = faiss.IndexBinaryMultiHash(64, 3, 21), queries.numpy()
        other.nflip = 1
        other.add(database.numpy())
        return lambda: other.search(asked, K)
    index = fasthash.HammingIndex.open(folder, method="scan" if library == "fasthash_scan" else "mih")
    return lambda: index.search(queries, K)


@pytest.mark.parametrize("library", ["fasthash", "fasthash_scan", "torch", FAISS])
def test_tables(timed: Timed, planted: tuple[Tensor, Tensor, Tensor, Path], library: str) -> None:
    """Close codes by multi-index hashing, against the scan of the same index, plain torch and faiss.

    The search of faiss is not exact in general. It finds all codes of this test: of 3 hashes of 21 bits, one has at
    most 1 of the 4 bits in which a code and its query differ, and nflip = 1 allows for that bit.
    """
    queries, database, distances, folder = planted

    def check(found: Any) -> None:
        assert torch.equal(torch.as_tensor(found[0]).int(), distances)

    title = f"HammingIndex.search with tables, 64 bits: Q = {len(queries)}, N = {len(database):,}, k = {K}"
    timed(title, close_search(library, queries, database, folder), check)
