"""Reading features: one pass over X, whatever is taken from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import QUICK, blobs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fasthash.train import Hasher, features
from fasthash.train.checksum import fingerprint
from fasthash.train.features import feature_scales, scan


class Reads(TorchDispatchMode):
    """How many times the values of X are read: by all ops that give something other than a view of it."""

    def __init__(self, X: Tensor) -> None:
        super().__init__()
        self.X, self.numbers = X, 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        of_X = [a for a in args if isinstance(a, Tensor) and a.data_ptr() and self._shares(a)]
        if of_X and not (isinstance(result, Tensor) and self._shares(result)):
            self.numbers += result.numel() if "index" in str(op) else of_X[0].numel()
        return result

    @property
    def passes(self) -> float:
        return self.numbers / self.X.numel()

    def _shares(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() == self.X.untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int32])
def test_statistics_take_one_pass_in_blocks(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    X = (torch.from_numpy(blobs()[0]) * 10).to(dtype)
    whole = feature_scales(X)
    assert torch.equal(whole[0], X.double().mean(0).float())
    monkeypatch.setattr(features, "NUMBERS", 7 * X.shape[1])  # blocks of 7 rows
    with Reads(X) as reads:
        mean, deviation = feature_scales(X)
    # Of float64 a block is no copy: three ops read it while it is in the cache.
    assert reads.passes == (3 if dtype == torch.float64 else 1)
    with Reads(X) as reads:
        scan(X, "X", checksum=False)
    assert reads.passes == (5 if dtype == torch.float64 else 1)  # and extent and sample
    torch.testing.assert_close(mean, whole[0])
    assert float(deviation) == pytest.approx((X.double() - X.double().mean(0)).square().mean().sqrt().item(), rel=1e-6)


def test_the_checksum_is_taken_in_the_same_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    X = torch.from_numpy(blobs()[0])
    monkeypatch.setattr(features, "NUMBERS", 7 * X.shape[1])
    found = scan(X, "X", checksum=True)
    assert found.checksum == fingerprint(X, found.mean, found.deviation)
    assert scan(X, "X", checksum=False).checksum == ""


def test_a_value_far_out_takes_a_second_pass() -> None:
    X = torch.from_numpy(blobs()[0])
    X[3, 4] = 1e6
    with Reads(X) as reads:
        found = scan(X, "X", checksum=False)
    assert reads.passes == 2
    assert found.far_out is not None


@pytest.mark.parametrize(
    ("targets", "settings", "before", "each"),
    [
        ("labels", {"item_bits": 0}, 1, 1),
        ("labels", {"item_bits": 4}, 1, 2),  # class-mates too
        ("embedding", {}, 1, 1),
        (None, {}, 2, 1),  # the neighbours of centred rows
        (None, {"hidden": (), "bits": 8}, 3, 1),  # and ITQ
    ],
)
def test_a_fit_reads_features_once_before_its_epochs(
    targets: str | None, settings: dict[str, Any], before: int, each: int
) -> None:
    X, y = blobs()
    rows = torch.from_numpy(X)
    targets_of = {"labels": y, "embedding": np.ascontiguousarray(X[:, ::-1]), None: None}
    with Reads(rows) as reads:
        Hasher(**{**QUICK, **settings}).fit(rows, targets_of[targets])
    assert reads.passes == before + each * QUICK["epochs"]


def test_a_long_fit_is_visible_from_its_first_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bar while X is read and while neighbours are looked for: silence looks like a program that hangs."""
    X = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    X[7, 2] = 1e9  # read twice
    steps: list[tuple[str, int]] = []

    class Bar:
        def __init__(self, what: str) -> None:
            self.what = what

        def __enter__(self) -> Bar:
            steps.append((self.what, 0))
            return self

        def __exit__(self, *exception: object) -> None:
            pass

        def update(self, count: int) -> None:
            steps.append((self.what, count))

    for module in ("features", "fit_parts"):
        monkeypatch.setattr(f"fasthash.train.{module}.progress_bar", lambda what, *_: Bar(what))
    monkeypatch.setattr(features, "ROWS", 100)
    with pytest.warns(UserWarning, match="far out"):
        Hasher(8, epochs=1, neighbors=4, progress=True).fit(X)
    assert steps[:4] == [("read", 0), ("read", 100), ("read", 100), ("read", 100)]
    assert [what for what, count in steps if not count] == ["read", "read again", "neighbours"]
    for what in ("read again", "neighbours"):
        assert sum(count for name, count in steps if name == what) == 300
    monkeypatch.undo()
    capsys.readouterr()
    Hasher(8, epochs=1, neighbors=4, progress=True).fit(X[10:])
    shown = capsys.readouterr().err
    assert 0 <= shown.index("read: 100%") < shown.index("neighbours: 100%") < shown.index("train: 100%")
    Hasher(8, epochs=1, neighbors=4).fit(X[10:])  # None: stderr is no terminal here
    assert capsys.readouterr().err == ""
