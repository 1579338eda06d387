"""hamming_pairs and duplicate_groups on CUDA (csrc/pairs/cuda), under the emulation, against the oracle.

In the emulation squares have 128 rows each way, and a launch has at most 16 blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from emulation import SOURCES, Emulation, EmulationError, build, compiler, with_faults
from numpy.typing import NDArray

from fasthash import pairs, reference
from fasthash._ops import pairs as pair_ops

Array = NDArray[Any]


def noisy_copies(count: int, width: int, centres: int = 20, flipped: float = 0.03, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    bits = (rng.random((centres, 8 * width)) < 0.5)[rng.integers(0, centres, count)]
    return np.packbits(bits ^ (rng.random((count, 8 * width)) < flipped), axis=1)


def check(gpu: Emulation, codes: Array, radius: int, other: Array | None = None, **rest: Any) -> None:
    right = None if other is None else torch.from_numpy(other)
    i, j, distances = (part.numpy() for part in reference.hamming_pairs(torch.from_numpy(codes), radius, right))
    for room in {len(i), len(i) // 2, 0}:
        total, keys, found = gpu.call("hamming_pairs", codes=codes, radius=radius, room=room, other=other, **rest)
        assert total == len(i)
        assert len(keys) == min(room, total)
        order = keys.argsort()
        wanted = (i << 32 | j).astype(np.int64)
        if room == total:
            np.testing.assert_array_equal(keys[order], wanted)
            np.testing.assert_array_equal(found[order], distances)
        else:
            assert len(np.unique(keys)) == len(keys)
            assert np.isin(keys, wanted).all()


@pytest.mark.parametrize("width", [1, 3, 4, 8, 9, 16, 31, 32, 48, 64, 128, 130])
def test_pairs_of_widths(gpu: Emulation, width: int) -> None:
    codes = noisy_copies(150, width)
    check(gpu, codes, width // 2, seed=width)
    check(gpu, codes[:40], 3 * width, noisy_copies(140, width, seed=1), seed=width)


@pytest.mark.parametrize("rows", [0, 1, 2, 16, 17, 127, 128, 129, 255, 257, 400])
def test_pairs_at_the_edges_of_squares(gpu: Emulation, rows: int) -> None:
    """Several launches too: 400 rows of 2 bytes make 10 squares of 4 tiles."""
    for width in (2, 8) if rows < 200 else (2,):
        codes = noisy_copies(rows, width, 5)
        check(gpu, codes, 2, seed=rows)
        check(gpu, codes, 2, noisy_copies(131, width, 5, seed=1), seed=rows)
        check(gpu, noisy_copies(3, width, 5), 4, codes, seed=rows)


@pytest.mark.parametrize("radius", [0, 1, 31, 63, 64, 1000])
def test_pairs_within_all_radii(gpu: Emulation, radius: int) -> None:
    codes = np.concatenate([noisy_copies(60, 8), np.zeros((2, 8), np.uint8), np.full((1, 8), 255, np.uint8)])
    check(gpu, codes, radius)
    check(gpu, np.full((140, 8), 0xA5, np.uint8), radius)  # all pairs


def test_pairs_with_columns_of_an_array(gpu: Emulation) -> None:
    codes, wide = noisy_copies(60, 8), noisy_copies(70, 21, seed=2)
    wide[:30, 5:13] = codes[:30] ^ 1
    arguments = {"codes": codes, "radius": 12, "room": 5000, "other": wide, "columns": (5, 13)}
    total, keys, _ = gpu.call("hamming_pairs", **arguments)
    wanted = reference.hamming_pairs(torch.from_numpy(codes), 12, torch.from_numpy(wide[:, 5:13].copy()))
    assert total == len(wanted[0]) >= 30
    np.testing.assert_array_equal(np.sort(keys), (wanted[0] << 32 | wanted[1]).numpy())


def chain(count: int) -> Array:
    """Code i has its first i bits set: neighbours are at distance 1."""
    return np.packbits(np.tri(count, 8 * ((count + 7) // 8), -1, dtype=np.uint8), axis=1)


@pytest.mark.parametrize("kind", ["copies", "equal", "chain", "chain in any order", "chain from its end", "random"])
def test_groups(gpu: Emulation, kind: str) -> None:
    rng = np.random.default_rng(1)
    codes = {
        "copies": noisy_copies(200, 8),
        "equal": np.full((150, 8), 7, np.uint8),
        "random": rng.integers(0, 256, (200, 5), dtype=np.uint8),
        "chain from its end": chain(150)[::-1].copy(),
        "chain in any order": rng.permutation(chain(150)),
        "chain": chain(150),
    }[kind]
    wanted = reference.duplicate_groups(torch.from_numpy(codes), 1 if "chain" in kind else 3, "single").numpy()
    for seed in range(2):
        found = gpu.call("duplicate_groups", codes=codes, radius=1 if "chain" in kind else 3, seed=seed)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("rows", [0, 1, 2, 129])
def test_groups_of_few(gpu: Emulation, rows: int) -> None:
    codes = noisy_copies(rows, 3, 3)
    wanted = reference.duplicate_groups(torch.from_numpy(codes), 2, "single").numpy()
    np.testing.assert_array_equal(gpu.call("duplicate_groups", codes=codes, radius=2), wanted)


def test_bad_calls_and_launches(gpu: Emulation) -> None:
    codes = noisy_copies(20, 8)
    with pytest.raises(
        EmulationError, match=r"^fh_duplicate_groups_cuda: the workspace must have 256 bytes, got -\d+$"
    ):
        gpu.call("duplicate_groups", codes=codes, radius=1, shortfall=10**9)
    for operation, rest in (("duplicate_groups", {}), ("hamming_pairs", {"room": 5})):
        with pytest.raises(EmulationError, match=r"^\w+_kernel: no kernel image is available"):
            gpu.call(operation, codes=codes, radius=1, fault=-209, **rest)
        with pytest.raises(EmulationError, match="radius >= 0"):
            gpu.call(operation, codes=codes, radius=-1, **rest)


# The Python around the kernels, whose place the emulation takes.


@pytest.fixture
def emulated(gpu: Emulation, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Calls of the kernels go to the emulation, for tensors in host memory. Gives the room of each search."""
    rooms: list[int] = []
    known: dict[int, torch.Tensor] = {}

    def address(tensor: torch.Tensor | None) -> int:
        if tensor is not None:
            known[tensor.data_ptr()] = tensor
        return 0 if tensor is None else tensor.data_ptr()

    def call(name: str, device: torch.device, *arguments: Any, workspace: Any = None) -> None:
        if name == "duplicate_groups":
            codes, _, _, radius, out = arguments
            known[out].copy_(torch.from_numpy(gpu.call(name, codes=known[codes].numpy(), radius=radius)))
            return
        codes, other, _, _, _, _, radius, room, keys, distances, counts = arguments
        rooms.append(room)
        right = known[other].numpy() if other else None
        total, found, near = gpu.call(name, codes=known[codes].numpy(), radius=radius, room=room, other=right)
        known[counts].copy_(torch.tensor([total, total]))
        if room:
            known[keys][: len(found)] = torch.from_numpy(found)
            known[distances][: len(near)] = torch.from_numpy(near)

    monkeypatch.setattr(pair_ops, "call", call)
    monkeypatch.setattr(pair_ops, "address", address)
    return rooms


def test_a_device_join_gives_ordered_pairs(emulated: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.from_numpy(noisy_copies(150, 8))
    for first_room, other in ((1 << 20, None), (10, None), (10, codes[20:60])):
        monkeypatch.setattr(pair_ops, "_FIRST_ROOM", first_room)
        wanted = reference.hamming_pairs(codes, 6, other)
        found = pairs._pairs_on_device(codes, other, 6, 10**6, "hamming_pairs")
        for part, whole in zip(found, wanted, strict=True):
            assert torch.equal(part, whole)
            assert part.dtype == whole.dtype
    total = len(reference.hamming_pairs(codes, 6)[0])
    assert emulated[:3] == [10**6, 10, total]  # a second pass only where the first has no room
    lowest = pair_ops.DeviceJoin(codes, None, 6).groups()
    assert torch.equal(lowest, reference.duplicate_groups(codes, 6, "single"))


def test_the_limit_is_checked_before_memory_is_taken(emulated: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.zeros(150, 8, dtype=torch.uint8)
    total = 150 * 149 // 2
    monkeypatch.setattr(pair_ops, "_FIRST_ROOM", 10)
    with pytest.raises(ValueError, match=rf"hamming_pairs: radius 1 gives {total} pairs, but limit is 100;"):
        pairs._pairs_on_device(codes, None, 1, 100, "hamming_pairs")
    assert emulated == [10]
    memory = SimpleNamespace(mem_get_info=lambda device: (128 * 50, 0))
    monkeypatch.setattr(torch, "cuda", memory)
    with pytest.raises(ValueError, match=rf"gives {total} pairs, but half of the free memory holds 50;"):
        pairs._pairs_on_device(codes, None, 1, None, "hamming_pairs")
    assert emulated == [10, 10]


# Faults. Each is a change of the sources that a person could make; FAULT is 1 where it shows, 0 elsewhere.

FAULTS = {
    "limits are read before they are staged": (
        "return limit; });\n    __syncthreads();",
        "return limit; });\n    if (!FAULT) __syncthreads();",
    ),
    "a row is a pair with itself": ("|| q0 + q < n)", "|| q0 + q < n + FAULT)"),
    "columns before the tile are left out": ("begin = max(begin, q0);", "begin = max(begin, q0 + 2 * FAULT);"),
    "the last squares have no launch": (
        "std::min(kMostBlocks, blocks - first)",
        "std::min(kMostBlocks - FAULT, blocks - first)",
    ),
    "a radius is not inclusive": ("scan.largest) + 1)", "scan.largest) + 1 - FAULT)"),
    "a root that is none any more gets a parent": (
        "if (atomicCAS(&parents[y], y, x) == y) return;",
        "if ((FAULT ? atomicExch(&parents[y], x), y : atomicCAS(&parents[y], y, x)) == y) return;",
    ),
    "two lanes take one place": (
        "atomicAdd(&kept.counts[1], Count(1))",
        "atomicAdd(&kept.counts[1], Count(1)) / (1 + FAULT)",
    ),
    "a warp's count is lost": ("lane_index() == 0 && all != 0", "lane_index() == 0 && all > FAULT"),
}  # fmt: skip


@pytest.fixture(scope="module")
def faulty() -> Iterator[Emulation]:
    """The kernels with all these faults in them."""
    if compiler() is None:
        pytest.skip("the emulation of CUDA needs g++")
    faults = [("hamming_pairs_cuda.cu", sound, wrong) for sound, wrong in FAULTS.values()]
    names = {"hamming_pairs_cuda.cu", "api.cpp", "emulation.cpp"}
    emulation = Emulation(build([source for source in SOURCES if source.name in names], with_faults(faults)))
    yield emulation
    emulation.close()


def wrong(gpu: Emulation, fault: int, seed: int) -> bool:
    """Whether a few joins under one schedule tell the fault."""
    codes = noisy_copies(300, 2, 40, seed=seed)
    unsorted = np.random.default_rng(seed).permutation(chain(200))
    try:
        check(gpu, codes, 2, seed=seed, fault=fault)
        check(gpu, noisy_copies(40, 8, seed=seed), 4, seed=seed, fault=fault)
        found = gpu.call("duplicate_groups", codes=unsorted, radius=1, seed=seed, fault=fault)
        assert not found.any()
    except (AssertionError, EmulationError):
        return True
    return False


def test_no_fault(faulty: Emulation) -> None:
    assert not any(wrong(faulty, 0, seed) for seed in range(2))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(faulty: Emulation, fault: str) -> None:
    number = 1 + list(FAULTS).index(fault)
    assert any(wrong(faulty, number, seed) for seed in range(6))
