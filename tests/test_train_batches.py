"""Batches in every form that loaders give: tuples, arrays, dicts by name; and what is said of the others."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import blobs
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fasthash.train import HashHead, Objective, train
from fasthash.train.unpacking import unpacked

pytestmark = pytest.mark.usefixtures("one_thread")

X, Y = (torch.from_numpy(part)[:128] for part in blobs())


class Named(Dataset):
    """Items are dicts, which a DataLoader makes dicts of batches of."""

    def __init__(self, columns: dict[str, Tensor]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: column[row] for name, column in self.columns.items()}


class Masked(nn.Module):
    """Takes its inputs by name, as the models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = HashHead(12, 8)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(input_ids * attention_mask)


def run(loader: Any, module: nn.Module | None = None, **options: Any) -> list[Tensor]:
    torch.manual_seed(0)
    module = HashHead(12, 8) if module is None else module
    torch.manual_seed(1)
    objective = Objective(8, classes=6, distance=1 - torch.eye(6), kl=0.0)
    train(module, loader, objective, epochs=2, progress=False, **options)
    return list(module.state_dict().values())


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def expected() -> list[Tensor]:
    return run(list(zip(X.split(32), Y.split(32), strict=True)))


@pytest.mark.parametrize(
    "names",
    [("x", "y"), ("pixel_values", "labels"), ("image", "label"), ("embedding", "target"), ("features", "targets")],
)
def test_dicts_by_name(names: tuple[str, str], expected: list[Tensor]) -> None:
    columns = dict(zip(names, (X, Y), strict=True))
    for order in (names, names[::-1]):
        assert same(run(DataLoader(Named({name: columns[name] for name in order}), batch_size=32)), expected)


def test_mappings_that_are_no_dicts(expected: list[Tensor]) -> None:
    loader = [UserDict({"labels": y, "pixel_values": x}) for x, y in zip(X.split(32), Y.split(32), strict=True)]
    assert same(run(loader), expected)
    arrays = [{"x": x.double().numpy(), "y": y.numpy()[:, None]} for x, y in zip(X.split(32), Y.split(32), strict=True)]
    assert same(run(arrays), expected)


@pytest.mark.parametrize("form", ["one dict", "inputs and y"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_several_inputs_by_name(form: str, precision: str) -> None:
    mask = (torch.rand(X.shape, generator=torch.Generator().manual_seed(0)) < 0.8).long()
    parts = list(zip((X * mask).split(32), Y.split(32), strict=True))
    expected = run(parts, precision=precision)
    inputs = [{"attention_mask": m, "input_ids": x} for x, m in zip(X.split(32), mask.split(32), strict=True)]
    labels = Y.split(32)
    if form == "one dict":
        loader = [{**part, "labels": y} for part, y in zip(inputs, labels, strict=True)]
    else:
        loader = list(zip(inputs, labels, strict=True))
    torch.manual_seed(0)
    found = run(loader, Masked(), precision=precision)
    assert same(found, expected)


def test_features_beside_x_and_y_are_the_objectives() -> None:
    seen = []

    def objective(z: Tensor, y: Tensor, features: Tensor) -> Tensor:
        seen.append((y, features))
        return z.square().mean()

    train(HashHead(12, 8), [{"features": X, "y": Y, "x": X * 2}], objective, epochs=1, progress=False)
    assert torch.equal(seen[0][0], Y)
    assert torch.equal(seen[0][1], X)

    class TakesFeatures(nn.Module):
        def forward(self, x: Tensor, features: Tensor) -> Tensor:
            return x + features

    batch = unpacked({"x": X, "features": X, "y": Y}, TakesFeatures(), torch.device("cpu"), torch.float32)
    assert list(batch.names) == ["x", "features"]
    assert len(batch.rest) == 1


def test_a_dict_without_targets() -> None:
    module = HashHead(12, 8)
    train(module, [{"x": X}], lambda z: (z - 1).square().mean(), epochs=1, progress=False)


class AnyNames(nn.Module):
    def forward(self, **inputs: Tensor) -> Tensor:
        return inputs["x"]


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (
            {"x": X, "index": Y, "y": Y},
            ValueError,
            r"train: cannot tell which entry of a batch is x: it has 'x', 'index', 'y', and the forward of HashHead "
            r"has no parameter 'x' \(only features\); give the loader a collate_fn that gives \(x, y\), or the module",
        ),
        ({"x": X, "y": Y, "label": Y}, ValueError, "a batch must have one entry of targets, got 'y', 'label'; give"),
        ({"y": Y}, ValueError, "a batch must have an entry that is x, got only 'y'"),
        ({}, ValueError, "a batch must have an entry that is x, got only "),
        ({"x": ["a", "b"], "y": Y}, TypeError, "train: entry 'x' of a batch must be a numeric array"),
        ({"x": X, "y": ["a", "b"]}, TypeError, "train: entry 'y' of a batch must be a numeric array"),
        ((X, ["a"]), TypeError, "train: part 2 of a batch must be a numeric array"),
        ((["a"], Y), TypeError, "train: x of a batch must be a numeric array"),
        ((), ValueError, r"a batch must be x, \(x, y\), \(x, y, features\) or a dict of them, got an empty one"),
        (7, TypeError, r"a batch must be x, \(x, y\), .* got int; give the loader a collate_fn"),
        ("x", TypeError, "or a dict of them, got str"),
    ],
)
def test_what_cannot_be_told(batch: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run([batch])


def test_a_module_that_takes_any_names_gets_all() -> None:
    batch = unpacked({"x": X, "index": Y, "y": Y}, AnyNames(), torch.device("cpu"), torch.float32)
    assert list(batch.names) == ["x", "index"]


def test_arrays_become_the_modules_type() -> None:
    batch = unpacked(
        {"a": np.zeros((2, 3)), "b": np.zeros(2, np.int32)}, AnyNames(), torch.device("cpu"), torch.float32
    )
    assert [part.dtype for part in batch.names.values()] == [torch.float32, torch.int32]
