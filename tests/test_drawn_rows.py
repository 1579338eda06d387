"""Rows that are drawn for the term preserve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import QUICK, blobs
from torch import Tensor

from fasthash import Hasher, kl_loss, listwise_loss
from fasthash.targets import embedding_distances, label_distances
from fasthash.train import Objective, fit_parts
from fasthash.train.batches import shuffled_batches
from fasthash.train.drawn_rows import DrawnRows


def made(X: Tensor, draws: int, *, batch: int = 4, seed: int = 0, workers: int = 0, **ranks: int) -> DrawnRows:
    order = torch.Generator().manual_seed(seed)
    loader = shuffled_batches(X, torch.arange(len(X)), batch_size=batch, generator=order, workers=workers, **ranks)
    return DrawnRows(loader, X, X.float().mean(0), draws=draws, seed=seed, **ranks)


def test_rows_have_the_mean_and_covariance_of_the_sample() -> None:
    torch.manual_seed(0)
    X = torch.randn(500, 6) @ torch.randn(6, 6) + torch.arange(6.0)
    rows = made(X, 40_000).draw()
    scale = X.std()
    torch.testing.assert_close(rows.mean(0), X.mean(0), rtol=0, atol=0.05 * float(scale))
    torch.testing.assert_close(rows.T.cov(), X.T.cov(), rtol=0, atol=0.1 * float(scale) ** 2)
    # Groups of four share half of their variance, and nothing is shared between groups.
    centred = (rows - rows.mean(0)).reshape(-1, 4, 6)
    within = (centred[:, 0] * centred[:, 3]).mean() / centred.square().mean()
    between = (centred[:-1, 3] * centred[1:, 0]).mean() / centred.square().mean()
    assert abs(within - 0.5) < 0.03
    assert abs(between) < 0.03


@pytest.mark.parametrize("draws", [0, 1, 3, 4, 9])
def test_a_batch_holds_its_own_rows_and_the_drawn_ones(draws: int) -> None:
    X = torch.randn(10, 3, dtype=torch.float64)
    batches = made(X, draws)
    assert len(batches) == len(list(batches)) == 2
    for both, y, features, drawn in batches:
        assert both.dtype == features.dtype == torch.float32
        assert drawn.tolist() == [False] * 4 + [True] * draws
        torch.testing.assert_close(both[:4], X[y].float(), rtol=0, atol=0)
        torch.testing.assert_close(features, both - X.float().mean(0))
        assert both.isfinite().all()


def test_draws_depend_on_the_seed_alone_and_differ_each_time() -> None:
    X = torch.randn(12, 3)
    first, again, other = (list(made(X, 4, seed=seed)) for seed in (0, 0, 1))
    fetched = list(made(X, 4, workers=1))
    for a, b, c, d in zip(first, again, fetched, other, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[0], c[0])
        assert not torch.equal(a[0][4:], d[0][4:])
    assert not torch.equal(first[0][0][4:], first[1][0][4:])
    batches = made(X, 4)
    assert not torch.equal(list(batches)[0][0][4:], list(batches)[0][0][4:])  # noqa: RUF015  (whole epochs)


def test_parts_of_ranks_are_the_batch() -> None:
    X = torch.randn(12, 3)
    whole = list(made(X, 5))
    parts = [list(made(X, 5, rank=rank, world=2)) for rank in (0, 1)]
    for batch, *ranks in zip(whole, *parts, strict=True):
        drawn = torch.cat([part[3] for part in ranks])
        for place in (0, 2):
            found = torch.cat([part[place] for part in ranks])
            torch.testing.assert_close(torch.cat([found[~drawn], found[drawn]]), batch[place])
        assert torch.equal(torch.cat([part[1] for part in ranks]), batch[1])


def test_only_kl_and_preserve_see_drawn_rows() -> None:
    torch.manual_seed(0)
    z, x, y = torch.rand(12, 16), torch.randn(12, 5), torch.arange(8) % 3
    matrix = 1.0 - torch.eye(3)
    drawn = torch.zeros(12, dtype=torch.bool)
    drawn[[1, 5, 6, 11]] = True
    temperatures = {"temperature_y": 0.2, "temperature_x": 0.15, "temperature_xz": 0.04}
    objective = Objective(16, classes=3, distance=matrix, preserve=1.0, **temperatures)
    torch.manual_seed(1)
    terms = objective.terms(z, y, x, drawn)
    plain = objective.terms(z[~drawn], y, x[~drawn])
    torch.testing.assert_close(terms["classification"], plain["classification"])
    similarity = listwise_loss(z[~drawn], label_distances(y, matrix), temperature_y=0.2, temperature_z=0.1)
    torch.testing.assert_close(terms["similarity"], similarity)
    torch.manual_seed(1)
    torch.testing.assert_close(terms["kl"], kl_loss(z))
    wanted = embedding_distances(x)
    weights = torch.full((12,), 0.05)
    weights[drawn] = 1.0
    preserve = listwise_loss(z, wanted, temperature_y=0.15, temperature_z=0.04, weights=weights)
    torch.testing.assert_close(terms["preserve"], preserve)
    torch.manual_seed(1)
    total = objective(z, y, x, drawn)
    torch.testing.assert_close(total, sum(objective.weights.get(n, 1.0) * term for n, term in terms.items()))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("targets", ["labels", "multilabel", "embedding", None])
def test_hasher_draws_only_with_preserve(targets: str | None, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made_of: list[dict[str, Any]] = []

    class Counted(DrawnRows):
        def __init__(self, *args: Any, **settings: Any) -> None:
            made_of.append(settings)
            super().__init__(*args, **settings)

    monkeypatch.setattr(fit_parts, "DrawnRows", Counted)
    X, y = blobs()
    values = {"labels": y, "multilabel": np.eye(int(y.max()) + 1, dtype=int)[y], "embedding": X[:, ::-1].copy()}
    given = None if targets is None else values[targets]
    settings = {**QUICK, "workers": workers, "hidden": (8,)}
    without = Hasher(**settings).fit(X, given)
    if targets == "labels":  # preserve has no meaning beside another loss
        Hasher(**settings, loss="csq", preserve=1.0).fit(X, given)
    assert not made_of
    kept, fewer = (Hasher(**settings, preserve=1.0, draws=draws).fit(X, given) for draws in (2, 0))
    assert [found["draws"] for found in made_of] == [2 * QUICK["batch_size"], 0]
    assert not np.array_equal(kept.transform(X), fewer.transform(X))
    assert not np.array_equal(kept.transform(X), without.transform(X))
    assert np.isfinite(kept.transform(X)).all()
