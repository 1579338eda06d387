"""Hamming search on CUDA tensors: what needs a GPU, and what can be told without one.

The kernels' results are compared with the oracle in test_hamming.py (on every device) and, without a GPU, in
test_cuda_sources.py and test_hamming_one_pass.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fasthash import HammingIndex, _ops, hamming_distances, hamming_histogram, hamming_range, hamming_topk
from fasthash._ops import registry

CUDA = torch.cuda.is_available() and bool(_ops.cuda_architectures())
needs_gpu = pytest.mark.skipif(not CUDA, reason="needs a GPU")


def random_codes(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, width), dtype=torch.uint8, generator=generator)


# Without a GPU


def test_topk_has_no_sync_in_python() -> None:
    """Tensors on "meta" have no values: whatever asked for one (.item(), a size that hangs on it) would raise."""
    queries, database = (torch.empty(rows, 8, dtype=torch.uint8, device="meta") for rows in (4, 1000))
    for filter in (None, torch.empty(1000, dtype=torch.bool, device="meta")):
        assert hamming_topk(queries, database, 10, filter=filter).ids.shape == (4, 10)


def test_the_core_never_waits_for_the_device() -> None:
    sources = Path(__file__).resolve().parent.parent / "csrc"
    for path in [*sources.rglob("*.cu"), *sources.rglob("*.cuh"), *sources.rglob("*_cuda.cpp"), *sources.rglob("*.h")]:
        code = re.sub(r"//[^\n]*", "", path.read_text())
        assert not re.search(r"cuda\w*Synchronize|cudaMemcpy\w*|cudaMalloc\w*|cudaFree\w*|<<<", code), path


def test_every_file_that_gpu_sh_gives_the_sanitizers_has_tests_for_them() -> None:
    root = Path(__file__).resolve().parent.parent
    script = (root / "benchmarks" / "gpu.sh").read_text()
    chosen = re.search(r'\nwhich="cuda and \((.+)\)"', script)
    files = re.search(r"\nsmall=\(([^)]+)\)", script)
    assert chosen is not None
    assert files is not None
    words = chosen[1].split(" or ")
    for path in files[1].split():
        tests = re.findall(r"def (test_\w+)", (root / path).read_text())
        assert any(word in test for word in words for test in tests), path


def test_tensors_on_two_devices_are_refused() -> None:
    queries, database = random_codes(2, 8), torch.empty(5, 8, dtype=torch.uint8, device="meta")
    words = "queries and database must be on one device, got cpu and meta"
    with pytest.raises(ValueError, match=f"hamming_topk: {words}"):
        hamming_topk(queries, database, 1)
    with pytest.raises(ValueError, match=f"hamming_range: {words}"):
        hamming_range(queries, database, 1)


@pytest.mark.parametrize(
    "words",
    [
        "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU",
        "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver",
    ],
)
def test_a_driver_that_is_missing_or_too_old(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(torch, "empty", refuse)
    for device in ("cuda", ["cuda:0"]):
        with pytest.raises(RuntimeError, match=re.escape(f"cannot be used here ({words})")):
            HammingIndex(64, device)


def test_a_workspace_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the bytes needed and those free."""

    def refuse(*arguments: object, **keywords: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    core = SimpleNamespace(cuda_architectures="90a", hamming_topk_cuda_workspace=lambda problem, k: 2**40)
    monkeypatch.setattr(registry, "_core", core)
    monkeypatch.setattr(torch, "empty", refuse)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (12345, 2**34))
    expected = f"hamming_topk: no memory for a workspace of {2**40} bytes on cuda:0: only 12345 bytes are free"
    with pytest.raises(torch.OutOfMemoryError, match=expected):
        registry.workspace_for(torch.device("cuda:0"), "hamming_topk", None, 3)


# With one


@needs_gpu
@pytest.mark.parametrize("k", [1, 10, 1000, 10_000])
@pytest.mark.parametrize(("rows", "width"), [(1_000_001, 8), (300_000, 32), (200_000, 5)])
def test_cuda_topk_of_many_codes(rows: int, width: int, k: int) -> None:
    """One pass, at the sizes of its stretches on a GPU; and codes from far to near."""
    database, queries = random_codes(rows, width), random_codes(70, width, 1)
    sorted_codes = database[hamming_distances(queries[:1], database)[0].argsort(descending=True)]
    mask = torch.rand(rows) < 0.3
    for codes, filter in ((database, None), (sorted_codes, None), (database, mask)):
        expected = hamming_topk(queries, codes, k, filter=filter)
        on_gpu = None if filter is None else filter.cuda()
        found = hamming_topk(queries.cuda(), codes.cuda(), k, filter=on_gpu)
        assert torch.equal(found.distances.cpu(), expected.distances)
        assert torch.equal(found.ids.cpu(), expected.ids)


@needs_gpu
@pytest.mark.parametrize("width", [8, 32])
@pytest.mark.parametrize("k", [1, 10, 700])
def test_cuda_topk_in_one_pass(k: int, width: int) -> None:
    """The fewest codes that are searched in one pass, for the sanitizers: the test above would take them minutes."""
    database, queries = random_codes(70_000, width), random_codes(130, width, 1)
    queries[3:] = 0
    from_far = database[hamming_distances(queries[3:4], database)[0].argsort(descending=True)]
    late = torch.arange(70_000) > 60_000  # nothing in the first stretches
    for codes, filter in ((database, None), (from_far, None), (database, late)):
        expected = hamming_topk(queries, codes, k, filter=filter)
        found = hamming_topk(queries.cuda(), codes.cuda(), k, filter=None if filter is None else filter.cuda())
        assert torch.equal(found.distances.cpu(), expected.distances)
        assert torch.equal(found.ids.cpu(), expected.ids)


@needs_gpu
@pytest.mark.parametrize("width", [8, 16, 32, 48, 64, 96, 128])
def test_cuda_products_of_bits(width: int) -> None:
    """Numbers of queries about those that a product and a tile of products take; top-k, range search, a filter."""
    database = random_codes(100_003, width)
    mask = torch.rand(len(database), generator=torch.Generator().manual_seed(1)) < 0.2
    for count in (2, 3, 4, 8, 9, 300):
        queries = random_codes(count, width, count)
        queries[0] = database[-1]
        radius = int(hamming_distances(queries[:1], database)[0].kthvalue(40).values)
        for filter in (None, mask):
            on_gpu = None if filter is None else filter.cuda()
            found = hamming_topk(queries.cuda(), database.cuda(), 20, filter=on_gpu)
            for ours, expected in zip(found, hamming_topk(queries, database, 20, filter=filter), strict=True):
                assert torch.equal(ours.cpu(), expected)
            within = hamming_range(queries.cuda(), database.cuda(), radius, filter=on_gpu)
            for ours, expected in zip(within, hamming_range(queries, database, radius, filter=filter), strict=True):
                assert torch.equal(ours.cpu(), expected)


ALL_WIDTHS = [1, 4, 5, 8, 16, 31, 32, 33, 48, 64, 96, 128, 265]


def weighted_layouts(bits: int) -> list[list[tuple[int, int]]]:
    """Groups that cut bytes, many in a word, and so many distances that shared memory does not count them."""
    singles = min(bits - 1, 63)
    many = [*((1, 1 + i % 7) for i in range(singles)), (bits - singles, 2)]
    return [[(3, 7), (bits - 5, 1)], many, [(bits // 2, 255), (bits - bits // 2 - 1, 199)]]


@needs_gpu
@pytest.mark.parametrize("width", ALL_WIDTHS)
def test_cuda_bit_weights_of_all_widths(width: int) -> None:
    """All four functions, by counting, small enough for the sanitizers; the sums up to rounding."""
    database, queries = random_codes(1000, width), random_codes(3, width, 1)
    queries[:2] = torch.stack([database[-1], ~database[3]])
    labels, weights = torch.arange(1000) % 3, torch.rand(3, 3, dtype=torch.float64)
    mask = torch.rand(1000, generator=torch.Generator().manual_seed(1)) < 0.2
    for groups in weighted_layouts(8 * width):
        distances = hamming_distances(queries, database, bit_weights=groups)
        assert torch.equal(hamming_distances(queries.cuda(), database.cuda(), bit_weights=groups).cpu(), distances)
        found = hamming_topk(queries.cuda(), database.cuda(), 300, filter=mask.cuda(), bit_weights=groups)
        expected = hamming_topk(queries, database, 300, filter=mask, bit_weights=groups)
        for ours, oracle in zip(found, expected, strict=True):
            assert torch.equal(ours.cpu(), oracle)
        radius = int(distances[2].kthvalue(40).values)
        within = hamming_range(queries.cuda(), database.cuda(), radius, bit_weights=groups)
        for ours, oracle in zip(within, hamming_range(queries, database, radius, bit_weights=groups), strict=True):
            assert torch.equal(ours.cpu(), oracle)
        histogram = {"database_labels": labels, "class_weights": weights, "bit_weights": groups}
        counts, sums = hamming_histogram(queries, database, **histogram)
        histogram |= {"database_labels": labels.cuda(), "class_weights": weights.cuda()}
        found_counts, found_sums = hamming_histogram(queries.cuda(), database.cuda(), **histogram)
        assert torch.equal(found_counts.cpu(), counts)
        torch.testing.assert_close(found_sums.cpu(), sums)


@needs_gpu
@pytest.mark.parametrize("width", ALL_WIDTHS)
def test_cuda_bit_weights_of_many_codes(width: int) -> None:
    """One pass, codes from far to near, which it hands to two, and a filter; a CUDA graph."""
    database, queries = random_codes(100_003, width), random_codes(70, width, 1)
    queries[0] = database[-1]
    mask = torch.rand(len(database), generator=torch.Generator().manual_seed(1)) < 0.2
    for groups in weighted_layouts(8 * width):
        far = database[hamming_distances(queries[:1], database, bit_weights=groups)[0].argsort(descending=True)]
        for codes, filter, k in ((database, None, 10), (far, None, 10), (database, mask, 700)):
            on_gpu = None if filter is None else filter.cuda()
            expected = hamming_topk(queries, codes, k, filter=filter, bit_weights=groups)
            found = hamming_topk(queries.cuda(), codes.cuda(), k, filter=on_gpu, bit_weights=groups)
            for ours, oracle in zip(found, expected, strict=True):
                assert torch.equal(ours.cpu(), oracle)
    asked, base, graph = torch.zeros_like(queries).cuda(), database.cuda(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = hamming_topk(asked, base, 10, bit_weights=groups)
    asked.copy_(queries)
    graph.replay()
    for ours, oracle in zip(found, hamming_topk(queries, database, 10, bit_weights=groups), strict=True):
        assert torch.equal(ours.cpu(), oracle)


@needs_gpu
def test_cuda_graph_of_topk() -> None:
    database, queries = random_codes(500_000, 8).cuda(), random_codes(4, 8, 1).cuda()
    filter = torch.rand(500_000, device="cuda") < 0.5
    hamming_topk(queries, database, 10, filter=filter)  # kernels are loaded at their first launch
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = hamming_topk(queries, database, 10, filter=filter)
    for seed in (2, 3):
        queries.copy_(random_codes(4, 8, seed))
        graph.replay()
        expected = hamming_topk(queries.cpu(), database.cpu(), 10, filter=filter.cpu())
        assert torch.equal(found.distances.cpu(), expected.distances)
        assert torch.equal(found.ids.cpu(), expected.ids)


@needs_gpu
def test_cuda_topk_runs_on_the_current_stream() -> None:
    """Work that is enqueued behind a long wait on another stream sees what that stream wrote."""
    database, queries = random_codes(200_000, 8).cuda(), torch.zeros(3, 8, dtype=torch.uint8, device="cuda")
    wanted = random_codes(3, 8, 5)
    staged = wanted.cuda()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        queries.copy_(staged)
        found = hamming_topk(queries, database, 5)
        ids = found.ids.cpu()
    assert torch.equal(ids, hamming_topk(wanted, database.cpu(), 5).ids)


@needs_gpu
@pytest.mark.parametrize("room", [None, 0, 4_500_000])  # bytes: for all codes, for none, for one segment of the two
def test_cuda_index_that_streams(tmp_path: Path, room: int | None) -> None:
    from fasthash.index.search.devices import Devices

    oracle = HammingIndex(64)
    oracle.add(random_codes(500_000, 8).numpy())
    oracle.add(random_codes(200_000, 8, 1).numpy(), ids=np.arange(10**6, 10**6 + 400_000, 2))
    oracle.remove(np.arange(0, 300_000, 7))
    oracle.save(tmp_path / "index")
    queries = random_codes(9, 8, 2).numpy()
    mask = np.random.default_rng(0).random(len(oracle)) < 0.4
    pinned = HammingIndex(64, ["cuda"])
    pinned.add(oracle.get(oracle.ids), ids=oracle.ids)
    everywhere = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    for index in (HammingIndex.open(tmp_path / "index", device="cuda"), pinned, oracle.to(everywhere)):
        index._devices = Devices(index.devices, room, 1 << 19)
        for filter in (None, mask, oracle.ids[::50]):
            for ours, expected in zip(
                index.search(queries, 20, filter), oracle.search(queries, 20, filter), strict=True
            ):
                np.testing.assert_array_equal(ours, expected)
            found, wanted = index.range_search(queries, 14, filter), oracle.range_search(queries, 14, filter)
            for ours, expected in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(ours, expected)
        if index.path is not None:
            streams = [placed.device < 0 for placed in index._devices._placed]
            assert streams == {None: [False, False], 0: [True, True]}.get(room, [True, False])


@needs_gpu
def test_cuda_index_that_does_not_fit() -> None:
    index = HammingIndex(64, "cuda")
    index.add(random_codes(100, 8))
    free = torch.cuda.mem_get_info()[0]
    codes = torch.empty(1, 8, dtype=torch.uint8).expand(2 * free // 8, 8)  # no memory of its own
    with pytest.raises(MemoryError, match=r"HammingIndex.add: no memory for \d+ bytes on cuda:0 \(.* free"):
        index.add(codes)
    assert len(index) == 100
    assert index.search(random_codes(1, 8), 1).ids.tolist() == [[0]]
