"""SuSana Distancia: losses over prototypes and the ICNN score against oracles in numpy; episodes; Hasher with them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hasher_cases import NAMES, QUICK, blobs, multi_hot
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fasthash import Hasher
from fasthash.losses.published import ICNNLoss, MeanLoss, PrototypeTripletLoss, PrototypicalLoss
from fasthash.losses.published.episodes import support_rows
from fasthash.train import EpisodeBatches, HashHead, train

EPISODIC = ("icnn", "prototype_triplet", "prototypical")
LOSSES: dict[str, Any] = {
    "icnn": ICNNLoss,
    "prototype_triplet": PrototypeTripletLoss,
    "prototypical": PrototypicalLoss,
    "mean": lambda: MeanLoss(PrototypicalLoss(), PrototypeTripletLoss(), ICNNLoss()),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def rows(count: int = 18, classes: int = 3, seed: int = 0, width: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (count,), generator=generator)
    return torch.randn(count, width, generator=generator, dtype=torch.float64), y


def query_terms(u: NDArray[Any], y: NDArray[Any], shot: int) -> list[tuple[int, dict[int, float]]]:
    """Of each query its class and its squared distance to each prototype, by loops."""
    chosen: dict[int, list[int]] = {}
    queries = []
    for i, label in enumerate(y.tolist()):
        if len(chosen.setdefault(label, [])) < shot:
            chosen[label].append(i)
        else:
            queries.append(i)
    prototypes = {label: u[members].mean(0) for label, members in chosen.items()}
    return [(int(y[i]), {c: float(((u[i] - p) ** 2).sum()) for c, p in prototypes.items()}) for i in queries]


def icnn_oracle(x: NDArray[Any], y: NDArray[Any], k: int, ahead: int | None) -> float:
    """The score by its six steps, with loops and no epsilon."""
    n = len(x)
    few = k + 2 >= n
    k = max(n - 2, 1) if few else k
    ahead = min(max(np.bincount(y).max() if ahead is None else ahead, k), 64)
    table, same = [], []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        distance = {j: math.dist(x[i], x[j]) for j in others}
        others.sort(key=lambda j, distance=distance: (distance[j], j))
        table.append([distance[j] for j in others[:ahead]])
        same.append([y[i] == y[j] for j in others[:ahead]])
    apart = [d for ds, ss in zip(table, same, strict=True) for d, s in zip(ds, ss, strict=True) if not s]
    inside, outside, purity = [], [], []
    for ds, ss in zip(table, same, strict=True):
        radius = min((d for d, s in zip(ds, ss, strict=True) if not s), default=math.inf)
        if radius > 0:
            scaled = [d / radius for d in ds[:k]]
            scaled = [value / max(1.0, max(scaled)) for value in scaled]
        else:  # the limit for a small radius
            scaled = [d / ds[k - 1] if ds[k - 1] else 0.0 for d in ds[:k]]
        own = [value for value, s in zip(scaled, ss, strict=False) if s]
        other = [d / max(apart) for d, s in zip(ds[:k], ss, strict=False) if not s]
        inside += [np.mean(own)] if own else []
        outside += [np.mean(other)] if other else []
        purity.append(np.mean(ss[:k]))
    lam_same = 1 - np.mean(inside) if inside else 0.0
    lam_diff = np.mean(outside) if outside else 1.0
    return float(((lam_same + lam_diff) / 2 + (1.0 if few else np.mean(purity))) / 2)


@pytest.mark.parametrize("shot", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_losses_over_prototypes_are_their_formulas(shot: int, seed: int) -> None:
    u, y = rows(seed=seed)
    terms = query_terms(u.numpy(), y.numpy(), shot)
    hinge, entropy = [], []
    for own, squares in terms:
        distances = {c: math.sqrt(square + 1e-6) for c, square in squares.items()}
        nearest = min(d for c, d in distances.items() if c != own)
        hinge.append(max(0.0, distances[own] - nearest + 0.7))
        entropy.append(squares[own] / 3 + math.log(sum(math.exp(-square / 3) for square in squares.values())))
    found = PrototypeTripletLoss(shot=shot, margin=0.7)(u, y)
    assert float(found) == pytest.approx(np.mean(hinge) if hinge else 0.0)
    found = PrototypicalLoss(shot=shot, temperature=3)(u, y)
    assert float(found) == pytest.approx(np.mean(entropy) if entropy else 0.0)


@pytest.mark.parametrize(("count", "classes"), [(2, 1), (3, 2), (6, 2), (7, 3), (24, 3), (24, 12), (40, 2), (140, 2)])
@pytest.mark.parametrize(("neighbors", "ahead"), [(4, None), (1, None), (3, 2), (4, 7), (2, 64)])
def test_icnn_score_is_its_formula(count: int, classes: int, neighbors: int, ahead: int | None) -> None:
    for seed in range(3):
        u, y = rows(count, classes, seed)
        found = ICNNLoss(neighbors=neighbors, look_ahead=ahead).score(u, y)
        assert float(found) == pytest.approx(icnn_oracle(u.numpy(), y.numpy(), neighbors, ahead), abs=1e-5)


def test_icnn_counts_coincident_rows_of_other_classes() -> None:
    """Whole numbers: many rows coincide, of the same class and of others."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        x, y = generator.integers(0, 3, (20, 2)).astype(float), generator.integers(0, 3, 20)
        found = ICNNLoss().score(torch.from_numpy(x), torch.from_numpy(y))
        assert float(found) == pytest.approx(icnn_oracle(x, y, 4, None), abs=1e-5)
    u, y = torch.zeros(12, 3), torch.arange(12) % 2
    u[:, 0] = (torch.arange(12) // 2).float()  # each row coincides with one of the other class
    mixed, own = ICNNLoss(neighbors=1).score(u, y), ICNNLoss(neighbors=1).score(u, torch.arange(12) // 2)
    assert float(mixed) == pytest.approx(0.0, abs=1e-6)  # the nearest is of the other class, at distance 0
    assert float(own) == pytest.approx(1.0)


def test_icnn_score_is_one_when_classes_are_points_infinitely_apart() -> None:
    y = torch.arange(40) % 4
    points = 10.0 * torch.eye(4)[y]
    for distance in (1e-3, 1.0, 1e6):
        assert float(ICNNLoss().score(distance * points, y)) == pytest.approx(1.0, abs=1e-6)
        assert float(ICNNLoss()(distance * points, y)) == pytest.approx(0.0, abs=1e-6)
    noise = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    scores = [float(ICNNLoss().score(points * distance + noise, y)) for distance in (0.0, 0.3, 1.0, 10.0, 1e4)]
    assert scores == sorted(scores)
    assert scores[-1] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_icnn_does_not_change_with_scale_and_place(dtype: torch.dtype) -> None:
    u, y = rows(30, 4)
    u = u.to(dtype)
    wanted = ICNNLoss().score(u, y)
    for scale in (1e-8, 1e-3, 3.0, 1e8):
        found = u.mul(scale).requires_grad_()
        score = ICNNLoss().score(found, y)
        torch.testing.assert_close(score, wanted, rtol=1e-5, atol=1e-6)
        (gradient,) = torch.autograd.grad(score, found)
        assert float((gradient * found.detach()).sum()) == pytest.approx(0.0, abs=1e-5)  # none along the scale
        assert float(gradient.sum()) == pytest.approx(0.0, abs=1e-4 / scale)
    torch.testing.assert_close(ICNNLoss().score(u + 7.0, y), wanted, rtol=1e-4, atol=1e-5)


@every_loss
@pytest.mark.parametrize("seed", range(3))
def test_gradients_in_float64(name: str, seed: int) -> None:
    u, y = rows(14, 3, seed)
    assert torch.autograd.gradcheck(LOSSES[name](), (u.requires_grad_(), y))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_degenerate_batches_are_finite(name: str, dtype: torch.dtype) -> None:
    u, y = rows(12)
    one, alone, pair = torch.zeros(12, dtype=torch.int64), torch.arange(12), torch.arange(12) // 6
    coincident = u[:6].repeat(2, 1)  # each row coincides with one of the other class
    cases = {
        "one class": (u, one),
        "no two rows of a class": (u, alone),
        "equal rows": (torch.ones(12, 5), y),
        "equal rows of one class": (torch.ones(12, 5), one),
        "rows of zeros": (torch.zeros(12, 5), y),
        "a row of zeros": (u * (torch.arange(12) > 0)[:, None], y),
        "coincident rows of other classes": (coincident, pair),
        "coincident classes": (torch.ones(12, 5) * pair[:, None], pair),
        "two rows": (u[:2], torch.tensor([0, 0])),
        "two rows of two classes": (u[:2], torch.tensor([0, 1])),
        "tiny": (u * 1e-30, y),
        "nearly equal": (1 + 1e-6 * u, y),
    }
    for case, (values, labels) in cases.items():
        given = values.to(dtype).requires_grad_()
        loss = LOSSES[name]()(given, labels)
        loss.backward()
        assert given.grad is not None, case
        assert bool(loss.isfinite()), case
        assert bool(given.grad.isfinite().all()), case
        if case in ("rows of zeros", "equal rows of one class"):
            assert not given.grad.any(), case
    for case in ("one class", "no two rows of a class"):
        if name.startswith("proto"):
            assert float(LOSSES[name]()(*cases[case]).detach()) == 0


@every_loss
def test_labels_may_be_any_integers_in_any_order(name: str) -> None:
    u, y = rows()
    loss = LOSSES[name]()
    torch.testing.assert_close(loss(u, 1000 - 7 * y), loss(u, y))


def test_mean_loss_is_the_mean() -> None:
    u, y = rows()
    parts = PrototypicalLoss(shot=2), PrototypeTripletLoss(shot=2), ICNNLoss()
    torch.testing.assert_close(MeanLoss(*parts)(u, y), sum(part(u, y) for part in parts) / 3)
    assert MeanLoss(*parts).rows_per_class == 16
    assert MeanLoss(nn.Identity()).rows_per_class is None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PrototypeTripletLoss(shot=0), ValueError, "PrototypeTripletLoss: shot must be at least 1, got 0"),
        (lambda: PrototypeTripletLoss(margin=-1), ValueError, "PrototypeTripletLoss: margin must be >= 0 and finite"),
        (lambda: PrototypicalLoss(temperature=0), ValueError, "PrototypicalLoss: temperature must be > 0 and finite"),
        (lambda: PrototypicalLoss(shot=1.5), TypeError, "PrototypicalLoss: shot must be an integer, got 1.5"),
        (lambda: ICNNLoss(neighbors=0), ValueError, "ICNNLoss: neighbors must be between 1 and 64, got 0"),
        (lambda: ICNNLoss(look_ahead=0), ValueError, "ICNNLoss: look_ahead must be between 1 and 64, got 0"),
        (lambda: ICNNLoss()(torch.rand(4, 2)), ValueError, r"ICNNLoss: y must be integer class labels of shape \[4\]"),
        (lambda: MeanLoss(), ValueError, "MeanLoss: at least one loss is needed, got none"),
        (lambda: MeanLoss(ICNNLoss), TypeError, "MeanLoss: losses must be modules, got type"),
    ],
)
def test_losses_refuse(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(("way", "shot", "queries"), [(1, 1, 1), (2, 1, 4), (5, 3, 2), (6, 5, 5)])
def test_support_and_queries_of_episodes_are_disjoint(way: int, shot: int, queries: int) -> None:
    generator = np.random.default_rng(0)
    y = generator.permutation(np.repeat(np.arange(6), generator.integers(10, 30, 6)))
    seen: set[int] = set()
    for batch in itertools.chain.from_iterable(EpisodeBatches(y, way=way, shot=shot, queries=queries) for _ in "123"):
        labels = torch.from_numpy(y[batch])
        support = support_rows(labels, shot).numpy()
        chosen, asked = np.array(batch)[support], np.array(batch)[~support]
        assert len(set(batch)) == len(batch) == way * (shot + queries)
        assert not set(chosen.tolist()) & set(asked.tolist())
        for part, count in ((chosen, shot), (asked, queries)):
            assert np.unique(y[part], return_counts=True)[1].tolist() == [count] * way
        seen |= set(batch)
    assert len(seen) > 0.5 * len(y)


def test_support_is_the_first_rows_of_a_class() -> None:
    for seed in range(5):
        _, y = rows(40, 5, seed)
        for shot in (1, 3, 50):
            support = support_rows(y, shot)
            for label in y.unique():
                inside = support[y == label].tolist()
                assert inside == [place < shot for place in range(len(inside))]


def test_episodes_come_from_their_seed_alone() -> None:
    y = np.repeat(["a", "b", "c"], 8)

    def drawn(seed: int, labels: Any = y, **more: Any) -> list[list[int]]:
        return list(EpisodeBatches(labels, way=2, shot=1, queries=3, seed=seed, **more))

    assert drawn(0) == drawn(0) != drawn(1)
    assert len(drawn(0)) == 3
    assert len(drawn(0, batches=7)) == 7
    torch.manual_seed(5)
    assert drawn(0, np.repeat([9, 2, 5], 8)) == drawn(0, torch.repeat_interleave(torch.arange(3), 8)) == drawn(0)
    episodes = EpisodeBatches(y, way=2, shot=1, queries=3, generator=torch.Generator().manual_seed(0))
    first, second = list(episodes), list(episodes)
    assert first == drawn(0) != second
    parts = [drawn(0, rank=rank, world=3) for rank in range(3)]
    assert [list(itertools.chain(*batch)) for batch in zip(*parts, strict=True)] == drawn(0)


@pytest.mark.parametrize(
    ("y", "settings", "error", "message"),
    [
        (
            ["a"] * 20 + ["b"] * 3,
            {"way": 2, "queries": 4},
            ValueError,
            r"EpisodeBatches: each class needs 1 \+ 4 rows, shot \+ queries, got 3 of class 'b'",
        ),
        (
            [0, 0, 1, 1],
            {"way": 3, "queries": 1},
            ValueError,
            r"way must be between 1 and 2 \(the classes of y\), got 3",
        ),
        ([0, 0, 1, 1], {"way": 0, "queries": 1}, ValueError, "EpisodeBatches: way must be between 1 and 2"),
        ([0, 0, 1, 1], {"way": 2, "shot": 0}, ValueError, "EpisodeBatches: shot must be at least 1, got 0"),
        ([0, 0, 1, 1], {"way": 2, "queries": 0}, ValueError, "EpisodeBatches: queries must be at least 1, got 0"),
        (
            [0, 0],
            {"way": 1, "queries": 1, "batches": 0},
            ValueError,
            "EpisodeBatches: batches must be at least 1, got 0",
        ),
        ([0, 0], {"way": 1, "queries": 1, "seed": -1}, ValueError, "EpisodeBatches: seed must be between 0"),
        ([], {"way": 1}, (ValueError, TypeError), "EpisodeBatches: y must"),
        ([0.5, 0.5], {"way": 1}, TypeError, "EpisodeBatches: y must hold integer or string classes, got float64"),
        (np.ones((4, 2), int), {"way": 1}, ValueError, r"EpisodeBatches: y must be class labels of shape \[N\]"),
    ],
)
def test_episodes_refuse(y: Any, settings: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        EpisodeBatches(y, **settings)


@every_loss
def test_a_loop_of_ones_own(name: str) -> None:
    """With torch's DataLoader; the loss of episodes that were not trained on falls."""
    X, y = (torch.from_numpy(part) for part in blobs(360))
    V, v = (torch.from_numpy(part) for part in blobs(120, seed=1))
    episodes = EpisodeBatches(y, way=4, shot=2, queries=4, seed=0)
    loader = DataLoader(TensorDataset(X, y), batch_sampler=episodes)
    torch.manual_seed(0)
    module, loss = HashHead(12, 8, sigmoid=False), LOSSES[name]()
    before = loss(module.eval()(V), v).item()
    optimizer = torch.optim.Adam(module.train().parameters(), lr=0.02)
    for _ in range(4):
        for x, labels in loader:
            optimizer.zero_grad()
            loss(module(x), labels).backward()
            optimizer.step()
    assert loss(module.eval()(V), v).item() < before


@pytest.mark.parametrize("name", EPISODIC)
def test_train_goes_on_in_the_middle_of_the_episodes(name: str, tmp_path: Path) -> None:
    X, y = (torch.from_numpy(part) for part in blobs())

    def run(folder: Path, epochs: int, stop: int | None = None) -> list[Tensor]:
        episodes = EpisodeBatches(y, way=3, shot=1, queries=5, batches=4, seed=0)
        loader = DataLoader(TensorDataset(X, y), batch_sampler=episodes)
        torch.manual_seed(0)
        module = HashHead(12, 8, sigmoid=False)

        def log(row: dict[str, Any]) -> None:
            if row["epoch"] == stop:
                raise KeyboardInterrupt

        train(module, loader, LOSSES[name](), epochs=epochs, run_dir=folder, log=log, progress=False)
        return list(module.state_dict().values())

    whole = run(tmp_path / "whole", 4)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", 4, stop=2)
    for a, b in zip(run(tmp_path / "parts", 4), whole, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("loss", [*EPISODIC, "mean"])
def test_hasher_saves_loads_and_goes_on(loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs()
    settings = {**QUICK, "loss": LOSSES[loss]() if loss == "mean" else loss, "progress": False}
    whole = Hasher(**settings).fit(X, NAMES[y])
    whole.save(tmp_path / "model.safetensors")
    loaded = Hasher.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.encode(X), whole.encode(X))
    assert loaded.rows_per_class is None
    save, saved = torch.optim.Optimizer.state_dict, []

    def interrupted(self: torch.optim.Optimizer) -> dict[str, Any]:
        saved.append(1)
        if len(saved) == 3:
            raise KeyboardInterrupt
        return save(self)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Optimizer, "state_dict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Hasher(**settings, run_dir=tmp_path / "run").fit(X, NAMES[y])
    parts = Hasher(**settings, run_dir=tmp_path / "run").fit(X, NAMES[y])
    assert len(saved) == 3
    np.testing.assert_array_equal(parts.transform(X), whole.transform(X))


class Recorded(nn.Module):
    """Notes how many rows of each class its batches have."""

    seen: ClassVar[list[list[int]]] = []

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        type(self).seen.append(sorted(y.unique(return_counts=True)[1].tolist()))
        return u.square().mean()


class Asking(Recorded):
    rows_per_class = 12


@pytest.mark.parametrize(
    ("loss", "rows_per_class", "wanted"),
    [(Recorded, 8, [8] * 6), (Asking, None, [12] * 4), (Asking, 24, [24] * 2), (Asking, 5, [5] * 6)],
)
def test_batches_of_hasher_are_episodes(loss: type[Recorded], rows_per_class: int | None, wanted: list[int]) -> None:
    X, y = blobs()
    Recorded.seen = loss.seen = []
    Hasher(**QUICK, loss=loss(), rows_per_class=rows_per_class).fit(X, y)
    assert all(counts == wanted for counts in loss.seen)
    assert len(loss.seen) == QUICK["epochs"] * (240 // sum(wanted))


@pytest.mark.parametrize(("loss", "rows_per_class"), [(Recorded, None), (Recorded, 1), (Asking, 1)])
def test_batches_of_hasher_are_random_where_nobody_asks(loss: type[Recorded], rows_per_class: int | None) -> None:
    X, y = blobs()
    Recorded.seen = loss.seen = []
    Hasher(**QUICK, loss=loss(), rows_per_class=rows_per_class).fit(X, y)
    assert len({tuple(counts) for counts in loss.seen}) > 3


def test_small_classes_make_smaller_episodes() -> None:
    X, y = blobs()
    kept = (y > 0) | (np.arange(240) < 18)  # three rows of class 0
    Recorded.seen = Asking.seen = []
    Hasher(**QUICK, loss=Asking()).fit(X[kept], y[kept])
    assert set(map(tuple, Asking.seen)) == {(3,) * 6}
    with pytest.raises(
        ValueError,
        match=r"Hasher.fit: rows_per_class must be between 1 and 3 \(the rows of the smallest class\), got 12",
    ):
        Hasher(**QUICK, loss=Asking(), rows_per_class=12).fit(X[kept], y[kept])
    with pytest.raises(ValueError, match=r"rows_per_class must be between 1 and 20 \(batch_size\), got 30"):
        Hasher(**{**QUICK, "batch_size": 20}, rows_per_class=30).fit(X, y)
    with pytest.raises(ValueError, match=r"Hasher.fit: rows_per_class must be at least 1, got 0"):
        Hasher(**QUICK, rows_per_class=0).fit(X, y)
    for target, kind in ((multi_hot(y), "multilabel"), (None, "embedding")):
        with pytest.raises(ValueError, match=f"rows_per_class needs class labels, got target '{kind}'"):
            Hasher(**QUICK, rows_per_class=4).fit(X, target)


@pytest.mark.parametrize("loss", [None, *EPISODIC])
def test_hasher_with_degenerate_data(loss: str | None) -> None:
    X, y = blobs(48)
    settings = {**QUICK, "loss": loss, "epochs": 1}
    given = {"one class": (X, y * 0), "equal rows": (X * 0 + 1, y), "a class of one row": (X, (np.arange(48) > 0) * 1)}
    for case, (features, labels) in given.items():
        if loss is not None:
            assert np.isfinite(Hasher(**settings).fit(features, labels).transform(X)).all(), case
    hasher = Hasher(**settings, rows_per_class=8).fit(X, y)  # the package's objective takes such batches too
    assert np.isfinite(hasher.transform(X)).all()
