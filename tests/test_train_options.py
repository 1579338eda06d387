"""Options of the training loop: precision, accumulation, averaged weights, patience, arrays, logs, compilation."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import NAMES, QUICK, blobs, hierarchy
from torch import Tensor, nn

import fasthash
from fasthash.metrics import mean_average_precision
from fasthash.targets import label_distances
from fasthash.train import Hasher, HashHead, Objective, train
from fasthash.train.averaging import Average
from fasthash.train.batches import shuffled_batches
from fasthash.train.features import scan
from fasthash.train.randomness import RankGenerator, generators_kept
from fasthash.train.run_config import run_config
from fasthash.train.supervision import targets_of

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*float16. on a CPU"),  # test_train_threads.py tests that warning
]


def batches(count: int = 6, rows: int = 32) -> list[tuple[Tensor, Tensor]]:
    X, y = blobs(count * rows)
    return list(zip(torch.from_numpy(X).split(rows), torch.from_numpy(y).split(rows), strict=True))


def head() -> HashHead:
    torch.manual_seed(0)
    return HashHead(12, 8)


def objective() -> Objective:
    torch.manual_seed(1)
    return Objective(8, classes=6, distance=1 - torch.eye(6), kl=0.0)


def weights(module: nn.Module) -> list[Tensor]:
    return list(module.state_dict().values())


# Accumulation


def test_accumulated_gradients_are_means() -> None:
    gradients = []

    class Spy(torch.optim.AdamW):
        def step(self, closure: Any = None) -> None:
            gradients.append(self.param_groups[0]["params"][0].grad.clone())

    module = nn.Linear(3, 2, bias=False)
    x = [torch.full((1, 3), float(i)) for i in (1, 2, 3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Spy)
        train(module, x, lambda z: z.sum(), epochs=1, accumulate=2, progress=False)
    assert [float(g[0, 0]) for g in gradients] == [1.5, 3.0]  # the mean of two, then the one that is left


# Averaged weights


def test_the_average_is_the_formula() -> None:
    module = HashHead(3, 2)
    average = Average(module, 0.5)
    expected = {name: value.clone().double() for name, value in module.state_dict().items()}
    for step in range(1, 12):
        module(torch.randn(5, 3))  # moves the statistics
        with torch.no_grad():
            module.linear.weight += 1
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value
    now = [value.clone() for value in weights(module)]
    with average.applied():
        for name, value in module.state_dict().items():
            torch.testing.assert_close(value.double(), expected[name].double(), atol=1e-5, rtol=1e-5)
        assert module.norm.num_batches_tracked == 11
    assert all(torch.equal(a, b) for a, b in zip(now, weights(module), strict=True))


def test_the_average_is_scored_and_kept() -> None:
    scored = []

    def score(module: nn.Module) -> float:
        scored.append([value.clone() for value in weights(module)])
        return 1.0 - abs(len(scored) - 3)  # the third is the best

    module, plain = head(), head()
    train(module, batches(), objective(), epochs=5, lr=1e-2, ema=0.9, score=score, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(scored[2], weights(module), strict=True))
    train(plain, batches(), objective(), epochs=5, lr=1e-2, progress=False)
    averaged = head()
    train(averaged, batches(), objective(), epochs=5, lr=1e-2, ema=0.9, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(scored[4], weights(averaged), strict=True))
    assert not torch.equal(plain.linear.weight, averaged.linear.weight)
    assert (plain.linear.weight - averaged.linear.weight).abs().max() < 0.1


# Patience


def test_patience_counts_scores_since_the_best() -> None:
    values = iter([0.1, 0.5, 0.4, 0.6, 0.5, math.nan, 0.6, 0.9])
    module = head()
    history = train(module, batches(), objective(), epochs=8, score=lambda _: next(values), patience=3, progress=False)
    assert (len(history.losses), history.best_epoch) == (7, 4)
    values = iter([0.9, 0.5, 0.4, 0.6])
    history = train(
        module,
        batches(),
        objective(),
        epochs=8,
        score=lambda _: next(values),
        score_every=2,
        patience=2,
        progress=False,
    )
    assert (len(history.losses), history.best_epoch) == (6, 2)


def test_hasher_patience() -> None:
    """Validation labels that say the opposite of the training labels: it gets worse and stops."""
    X, y = blobs()
    wrong = (X, np.random.default_rng(0).permutation(y))
    hasher = Hasher(**{**QUICK, "epochs": 40}, patience=2).fit(X, y, validation=wrong)
    assert len(hasher.history_.losses) == hasher.best_epoch_ + 2 < 40
    assert None not in hasher.history_.scores
    with pytest.raises(ValueError, match=r"Hasher\.fit: patience needs validation, got patience 2 and no validation"):
        Hasher(**QUICK, patience=2).fit(X, y)


# Precision


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision(precision: str) -> None:
    seen = []

    class Probe(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            result = super().forward(x)
            seen.append(result.dtype)
            return result

    def spy(z: Tensor, y: Tensor) -> Tensor:
        seen.append(z.dtype)
        return target(z, y)

    torch.manual_seed(0)
    module, target = nn.Sequential(Probe(12, 16), nn.ReLU(), HashHead(16, 8)), objective()
    history = train(module, batches(), spy, epochs=8, lr=1e-2, precision=precision, progress=False)
    assert seen[:2] == [getattr(torch, precision), torch.float32]
    assert history.losses[-1] < 0.9 * history.losses[0]
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights(module))


def test_head_keeps_full_precision_behind_its_linear_layer() -> None:
    module, x = head().eval(), torch.randn(64, 12)
    with torch.autocast("cpu", torch.bfloat16):
        z = module(x)
    assert z.dtype == torch.float32
    assert len(z.unique()) > 400  # 16-bit outputs near 0 and 1 would coincide
    assert module.half()(x.half()).dtype == torch.float16


def test_hasher_passes_its_settings_on() -> None:
    X, y = blobs()
    plain = Hasher(**QUICK).fit(X, y)
    for settings in ({"precision": "bfloat16"}, {"ema": 0.9}):
        other = Hasher(**QUICK, **settings).fit(X, y)
        assert not np.array_equal(other.transform(X), plain.transform(X))
        assert mean_average_precision(other.encode(X), other.encode(X), y, y) > 0.8
    with pytest.raises(ValueError, match=r"Hasher\.fit: workers must be at least 0, got -1"):
        Hasher(**QUICK, workers=-1).fit(X, y)
    with pytest.raises(TypeError, match=r"Hasher\.fit: patience must be an integer, got 1.5"):
        Hasher(**QUICK, patience=1.5).fit(X, y, validation=(X, y))


# Arrays, loaders, logs


def test_numpy_batches() -> None:
    X, y = blobs(64)
    results = []
    for x, labels in ((X.astype(np.float64), y), (torch.from_numpy(X), torch.from_numpy(y)), (X, y.tolist())):
        module = head()
        train(module, [(x, labels)], objective(), epochs=2, progress=False)
        results.append(module.linear.weight.detach())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    train(head(), [X, X], lambda z: z.mean(), epochs=1, progress=False)
    with pytest.raises(TypeError, match=r"train: part 2 of a batch must be a numeric array or tensor"):
        train(head(), [(X, NAMES[y])], objective(), epochs=1, progress=False)


def test_booleans_are_the_labels_0_and_1_everywhere() -> None:
    X, y = blobs(64)
    flags = y % 2 == 0
    results = []
    for labels in (flags, flags.astype(np.int64)):
        module = head()
        target = Objective(8, classes=2, distance=1 - torch.eye(2), kl=0.0)
        results.append(train(module, [(X, labels)], target, epochs=1, progress=False).losses)
        codes = Hasher(**QUICK).fit(X, labels).encode(X)
        results[-1].append(mean_average_precision(codes, codes, labels, torch.from_numpy(labels)))
        results[-1].append(label_distances(labels, np.array([[0, 0.5], [0.5, 0]])).sum().item())
    assert results[0] == results[1]
    np.testing.assert_array_equal(Hasher(**QUICK).fit(X, flags).classes_, [0, 1])


def test_log_and_the_call_of_the_package() -> None:
    rows: list[dict[str, Any]] = []
    values = iter([0.25, 0.5])
    history = fasthash.train(
        head(), batches(), objective(), epochs=3, lr=1.0, score=lambda _: next(values), score_every=2, log=rows.append,
        progress=False,
    )  # fmt: skip
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["loss"] for row in rows] == history.losses
    assert [row["score"] for row in rows] == history.scores == [None, 0.25, 0.5]
    assert 1 > rows[0]["lr"] > rows[1]["lr"] > rows[2]["lr"] > 0
    assert all(row["seconds"] >= 0 for row in rows)


def test_compile_runs_the_module_only(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    original = torch.compile

    def spy(module: Any) -> Any:
        compiled.append(module)
        return original(module, backend="eager")

    monkeypatch.setattr(torch, "compile", spy)
    module, plain = head(), head()
    train(module, batches(), objective(), epochs=2, compile=True, progress=False)
    train(plain, batches(), objective(), epochs=2, progress=False)
    assert compiled == [module]
    assert all(torch.equal(a, b) for a, b in zip(weights(module), weights(plain), strict=True))


def test_workers_change_nothing() -> None:
    X, y = blobs()
    found = [Hasher(**{**QUICK, "epochs": 2}, workers=workers).fit(X, y).transform(X) for workers in (0, 2)]
    np.testing.assert_array_equal(*found)


def test_the_order_is_that_of_torch() -> None:
    """What a seed gives stays what it was."""
    sampler, generator = (torch.Generator().manual_seed(3) for _ in range(2))
    loader = shuffled_batches(torch.arange(11), batch_size=4, generator=generator)
    for _ in range(3):
        torch.empty((), dtype=torch.int64).random_(generator=sampler)  # the loader's seed for its workers
        order = list(torch.utils.data.RandomSampler(range(11), generator=sampler))
        assert [row for (batch,) in loader for row in batch.tolist()] == order[:8]


def test_ranks_share_every_batch() -> None:
    parts = []
    for part in ({}, {"rank": 0, "world": 2}, {"rank": 1, "world": 2}):
        generator = torch.Generator().manual_seed(3)
        parts.append([b for (b,) in shuffled_batches(torch.arange(40), batch_size=7, generator=generator, **part)])
    for whole, first, second in zip(*parts, strict=True):
        assert torch.equal(whole, torch.cat([first, second]))
        assert (len(first), len(second)) == (3, 4)


# Random numbers


def test_ranks_draw_for_themselves_and_again_alike() -> None:
    torch.manual_seed(5)
    ranks = [RankGenerator(rank, torch.device("cpu")) for rank in (0, 1, 0)]
    draws = []
    for generator in ranks:
        generator.start_epoch(2)
        common = torch.get_rng_state()
        with generator.active():
            first = torch.rand(3)
        assert torch.equal(torch.get_rng_state(), common)
        with generator.active():
            draws.append(torch.cat([first, torch.rand(3)]))
    assert torch.equal(draws[0], draws[2])
    assert len(torch.cat(draws[:2]).unique()) == 12
    ranks[0].start_epoch(3)
    with ranks[0].active():
        assert not torch.equal(torch.rand(3), draws[0][:3])


def test_generators_kept() -> None:
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    with generators_kept():
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert random.getstate() == before[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate": 0}, "train: accumulate must be at least 1, got 0"),
        ({"patience": 0}, "train: patience must be at least 1, got 0"),
        ({"patience": 2}, "train: patience needs a score, got patience 2 and no score"),
        ({"ema": 1.0}, "train: ema must be >= 0 and < 1, got 1.0"),
        ({"precision": "half"}, "train: precision must be 'float32', 'bfloat16' or 'float16', got 'half'"),
    ],
)
def test_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(head(), batches(1), objective(), progress=False, **settings)


def test_hierarchy_is_part_of_a_run_config() -> None:
    """So that a run with other distances is another run."""
    X, y = blobs(60)
    features = scan(torch.from_numpy(X), "X", checksum=True)
    configs = []
    for tree in (None, hierarchy()):
        targets = targets_of(features, NAMES[y], None, tree)
        configs.append(run_config(Hasher(**QUICK, hierarchy=tree).get_params(), features, targets, None))
    assert configs[0]["hasher"] == configs[1]["hasher"]
    assert configs[0]["data"]["hierarchy"] != configs[1]["data"]["hierarchy"]
