"""The sampler of the default target: Beta(0.1, 0.1), a function of seed and position alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fasthash import _ops  # noqa: F401  (registers the ops)


def sample(seed: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    out: Tensor = torch.ops.fasthash.beta_sample(torch.tensor([seed], device=device), count)
    return out


def philox(seed: int, counter: int) -> list[int]:
    """Philox4x32-10 in plain Python (Salmon et al., 2011)."""
    word = [counter & 0xFFFFFFFF, counter >> 32, 0, 0]
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for _ in range(10):
        a, b = 0xD2511F53 * word[0], 0xCD9E8D57 * word[2]
        word = [(b >> 32) ^ word[1] ^ key[0], b & 0xFFFFFFFF, (a >> 32) ^ word[3] ^ key[1], a & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return word


def test_philox_known_answer() -> None:
    # The generator's published test vector for a zero key and counter.
    assert philox(0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**62 + 12345])
def test_is_the_inverse_cdf_of_philox(seed: int, device: torch.device) -> None:
    special = pytest.importorskip("scipy.special")
    words = np.array([w for c in range(64) for w in philox(seed % 2**64, c)], dtype=np.uint64)
    u = ((words >> 1).astype(np.float64) + 0.5) / 2**32
    x = special.betaincinv(0.1, 0.1, u)
    wanted = np.where(words & 1, 1 - x, x)
    got = sample(seed, 256, device).double().cpu().numpy()
    np.testing.assert_allclose(got, wanted, rtol=4e-6, atol=1e-30)


def test_distribution(device: torch.device) -> None:
    stats = pytest.importorskip("scipy.stats")
    x = sample(7, 400_000, device).double().cpu().numpy()
    wanted = stats.beta(0.1, 0.1)
    for power in (1, 2, 3, 4):
        error = wanted.moment(2 * power) ** 0.5 / np.sqrt(len(x))
        assert abs((x**power).mean() - wanted.moment(power)) < 5 * error
    assert abs(np.abs(x - x.round()).mean() - 0.058) < 0.001  # the design's figure
    assert abs((x == 1).mean() - 0.09) < 0.003  # what float32 cannot tell from 1
    below = x[x < 1 - 1e-6]  # Kolmogorov-Smirnov where float32 has not rounded the top away
    assert stats.kstest(below, lambda v: wanted.cdf(v) / wanted.cdf(1 - 1e-6)).pvalue > 1e-3


def test_depends_on_seed_and_position_alone(device: torch.device) -> None:
    long = sample(3, 100_003, device)
    assert torch.equal(long[:77], sample(3, 77, device))
    assert not torch.equal(long[:77], sample(4, 77, device))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(long, sample(3, 100_003, device))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(long.cpu(), sample(3, 100_003), rtol=1e-5, atol=1e-30)
    assert len(sample(3, 0, device)) == 0
