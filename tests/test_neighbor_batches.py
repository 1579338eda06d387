"""Batches of near rows, and the neighbours that they are drawn from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hasher_cases import blobs

from fasthash.train import neighbor_batches
from fasthash.train.batches import shuffled_batches
from fasthash.train.neighbor_batches import NeighborBatches, nearest_rows


@pytest.mark.parametrize("rows", [2, 3, 50, 2049])
def test_nearest_rows_are_a_full_sort(rows: int) -> None:
    x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(rows), dtype=torch.float64)
    found = nearest_rows(x, torch.Generator(), k=5)
    k = min(5, rows - 1)
    unit = torch.nn.functional.normalize(x.float(), dim=1)
    wanted = (unit @ unit.T).fill_diagonal_(-2).topk(k, dim=1).indices
    assert found.shape == (rows, k)
    assert (found == wanted).float().mean() > 0.999


def test_equal_rows_are_never_their_own_neighbours() -> None:
    found = nearest_rows(torch.ones(40, 3), torch.Generator(), k=4)
    assert not (found == torch.arange(40)[:, None]).any()
    assert found.shape == (40, 4)


def test_large_sets_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbor_batches, "CANDIDATES", 30)
    monkeypatch.setattr(neighbor_batches, "PAIRS", 2000)
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    found = nearest_rows(x, torch.Generator().manual_seed(1), k=8)
    assert found.shape == (100, 8)
    assert len(found.unique()) <= 30
    assert not (found == torch.arange(100)[:, None]).any()


@pytest.mark.parametrize(("group", "batch_size"), [(2, 8), (16, 48), (16, 10), (500, 60)])
def test_batches_hold_neighbours_and_no_row_twice(group: int, batch_size: int) -> None:
    x = torch.from_numpy(blobs(480)[0])
    nearest = nearest_rows(x, torch.Generator(), k=20)
    batches = NeighborBatches(nearest, group, batch_size, torch.Generator().manual_seed(0))
    drawn = list(batches)
    assert len(drawn) == len(batches) == 480 // batch_size
    assert all(len(set(batch)) == batch_size for batch in drawn)
    groups = max(1, batch_size // min(group, 21, batch_size))
    for batch in drawn:
        inside = torch.isin(nearest[torch.tensor(batch[:groups])], torch.tensor(batch)).sum(1)
        assert int(inside.min()) >= min(group, 21, batch_size - groups + 1) - 1
    again = NeighborBatches(nearest, group, batch_size, torch.Generator().manual_seed(0))
    assert list(again) == drawn
    assert list(again) != drawn  # the next epoch


def test_ranks_share_each_batch() -> None:
    nearest = nearest_rows(torch.from_numpy(blobs(240)[0]), torch.Generator(), k=20)
    whole = list(NeighborBatches(nearest, 4, 30, torch.Generator().manual_seed(0)))
    parts = [list(NeighborBatches(nearest, 4, 30, torch.Generator().manual_seed(0), rank, 4)) for rank in range(4)]
    assert [[row for rows in part for row in rows] for part in zip(*parts, strict=True)] == whole


def test_loader_uses_them() -> None:
    x = torch.from_numpy(blobs(240)[0])
    nearest = nearest_rows(x, torch.Generator(), k=20)
    settings: dict[str, Any] = {"batch_size": 40, "nearest": nearest}
    order = torch.Generator().manual_seed(0)
    near = torch.cat(
        [torch.cdist(b, b).mean()[None] for (b,) in shuffled_batches(x, generator=order, group=10, **settings)]
    )
    far = torch.cat(
        [torch.cdist(b, b).mean()[None] for (b,) in shuffled_batches(x, generator=order, group=1, **settings)]
    )
    assert near.mean() < 0.95 * far.mean()
