"""The host emulation of CUDA itself: it must tell kernels with known faults from sound ones."""

from __future__ import annotations

import numpy as np
import pytest
from emulation import Emulation, EmulationError

SEEDS = range(6)


def test_schedules_follow_the_seed(gpu: Emulation) -> None:
    values = np.zeros(128, np.int32)
    arrivals = [gpu.call("toy", name="arrival", values=values, block=64, seed=seed) for seed in SEEDS]
    assert len({arrival.tobytes() for arrival in arrivals}) == len(arrivals)
    again = gpu.call("toy", name="arrival", values=values, block=64, seed=3)
    np.testing.assert_array_equal(again, arrivals[3])
    for block in again.reshape(2, 64):
        assert sorted(block) == list(range(64))


@pytest.mark.parametrize("count", [1, 100, 128, 300])
def test_block_sum_with_barriers_is_right(gpu: Emulation, count: int) -> None:
    values = np.random.default_rng(count).integers(-1000, 1000, count).astype(np.int32)
    blocks = -(-count // 128)
    expected = np.pad(values, (0, blocks * 128 - count)).reshape(blocks, 128).sum(1)
    for seed in SEEDS:
        sums = gpu.call("toy", name="block_sum", values=values, block=128, shape=(blocks,), seed=seed)
        np.testing.assert_array_equal(sums, expected)


def test_a_missing_barrier_shows(gpu: Emulation) -> None:
    values = np.arange(1, 129, dtype=np.int32)
    arguments = {"name": "block_sum_without_barrier", "values": values, "block": 128, "shape": (1,)}
    sums = [int(gpu.call("toy", seed=seed, **arguments)[0]) for seed in SEEDS]
    assert any(total != values.sum() for total in sums)


def test_a_missing_warp_barrier_shows(gpu: Emulation) -> None:
    values = np.arange(32, dtype=np.int32)
    for seed in SEEDS:
        sound = gpu.call("toy", name="warp_neighbour", values=values, block=32, seed=seed)
        np.testing.assert_array_equal(sound, values ^ 1)
    faulty = [gpu.call("toy", name="warp_neighbour_without_barrier", values=values, block=32, seed=s) for s in SEEDS]
    assert any((out != values ^ 1).any() for out in faulty)


def test_a_step_over_a_tile_edge_is_reported(gpu: Emulation) -> None:
    values = np.arange(100, dtype=np.int32)
    np.testing.assert_array_equal(gpu.call("toy", name="copy", values=values, block=64), values)
    with pytest.raises(EmulationError, match="heap-buffer-overflow"):
        gpu.call("toy", name="copy_past_the_edge", values=values, block=64)


def test_a_step_over_shared_memory_is_reported(gpu: Emulation) -> None:
    values = np.arange(128, dtype=np.int32)
    np.testing.assert_array_equal(gpu.call("toy", name="reverse", values=values, block=128), values[::-1])
    with pytest.raises(EmulationError, match="heap-buffer-overflow"):
        gpu.call("toy", name="reverse_past_the_tile", values=values, block=128)


def test_a_barrier_that_some_threads_miss_is_reported(gpu: Emulation) -> None:
    values = np.arange(64, dtype=np.int32)
    with pytest.raises(
        EmulationError, match=r"toy_divergent_barrier_kernel: deadlock .* 32 have left the kernel; 32 wait"
    ):
        gpu.call("toy", name="divergent_barrier", values=values, block=64)
    np.testing.assert_array_equal(gpu.call("toy", name="copy", values=values, block=64), values)  # it goes on


def test_different_barriers_are_reported(gpu: Emulation) -> None:
    with pytest.raises(EmulationError, match="barrier divergence"):
        gpu.call("toy", name="two_barriers", values=np.arange(64, dtype=np.int32), block=64)


def test_a_shuffle_that_names_absent_lanes_is_reported(gpu: Emulation) -> None:
    values = np.arange(32, dtype=np.int32)
    out = gpu.call("toy", name="half_warp_sum", values=values, block=32)
    np.testing.assert_array_equal(out, [sum(range(16))] * 16 + list(range(16, 32)))
    with pytest.raises(EmulationError, match=r"wait in warp collectives .* mask 0xffffffff"):
        gpu.call("toy", name="half_warp_sum_of_all_lanes", values=values, block=32)
    with pytest.raises(EmulationError, match="named mask 0x0000ffff in a warp of lanes 0x000000ff"):
        gpu.call("toy", name="half_warp_sum", values=values[:8], block=8)


def test_a_misaligned_vector_load_is_reported(gpu: Emulation) -> None:
    values = np.arange(128, dtype=np.int32)
    aligned = gpu.call("toy", name="vector_copy", values=values, block=32, offset=16)
    np.testing.assert_array_equal(aligned, values)
    with pytest.raises(EmulationError, match="misaligned address"):
        gpu.call("toy", name="vector_copy", values=values, block=32, offset=4)


def test_warp_collectives(gpu: Emulation) -> None:
    values = np.random.default_rng(0).integers(0, 5, 64).astype(np.int32)
    for seed in SEEDS:
        out = gpu.call("toy", name="collectives", values=values, block=64, shape=(64, 6), seed=seed)
        for t, row in enumerate(out):
            warp, lane = values[t // 32 * 32 : t // 32 * 32 + 32], t % 32
            peers = (warp == values[t]).sum()
            up, down = warp[max(lane - 1, 0)], warp[min(lane + 1, 31)]
            if lane == 0:
                up = warp[0]
            np.testing.assert_array_equal(row, [peers, up, down, warp[0], (values % 2).sum(), (warp > 2).sum()])


def test_launch_limits_are_those_of_a_gpu(gpu: Emulation) -> None:
    values = np.arange(3000, dtype=np.int32)
    with pytest.raises(EmulationError, match="toy_copy_kernel<0>: invalid argument"):
        gpu.call("toy", name="copy", values=values, block=1025)
    assert gpu.call("toy", name="copy", values=values[:0], block=64).size == 0  # no blocks: nothing is launched
