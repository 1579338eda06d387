"""Values far outside the usual range: fit warns of them. They do not spoil what is learned or codes of other rows."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import QUICK, blobs

from fasthash import Hasher, baselines
from fasthash._checkpoint import load_checkpoint, save_checkpoint
from fasthash._far_out import find, sample_of, usual_of
from fasthash.cli import main
from fasthash.datasets import clinc150
from fasthash.metrics import mean_average_precision
from fasthash.train import features
from fasthash.train.features import feature_scales, scan

FIT: dict[str, Any] = {"bits": 32, "hidden": (64,), "epochs": 12, "batch_size": 64, "progress": False}
VALUES = (1e6, -1e6, 1e30, 3e38)


def clusters(rows: int = 400, width: int = 32, spread: float = 0.6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ten classes around random centres, which overlap a little."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 10
    centres = rng.normal(size=(10, width)) * spread
    return (centres[y] + rng.normal(size=(rows, width))).astype(np.float32), y


def one(value: float, row: int = 17, column: int = 3) -> Callable[[np.ndarray], list[int]]:
    def spoil(X: np.ndarray) -> list[int]:
        X[row, column] = value
        return [row]

    return spoil


def several(X: np.ndarray) -> list[int]:
    rows = [0, 5, 100, 250, len(X) - 1]
    X[rows, [0, 7, X.shape[1] - 1, 7, 2]] = [1e6, -1e6, 1e30, 4e5, 1e9]
    return rows


def whole_row(X: np.ndarray) -> list[int]:
    X[41] = 1e6
    return [41]


def sentinels(X: np.ndarray) -> list[int]:
    rows = list(range(3, len(X), 40))
    X[rows, 5] = -99999.0
    return rows


def quality(X: np.ndarray, y: np.ndarray, wrong: list[int], settings: dict[str, Any], targets: Any = "y") -> float:
    """mAP of the codes of all rows but the wrong ones; with warnings as pytest has them."""
    codes = Hasher(**settings).fit(X, y if isinstance(targets, str) else targets).encode(X)
    keep = np.setdiff1d(np.arange(len(X)), wrong)
    return float(mean_average_precision(codes[keep], codes[keep], y[keep], y[keep]))


SPOILED = [*(one(v) for v in VALUES), one(1e6, 0, 0), one(1e6, 399, 31), several, whole_row, sentinels]


@pytest.mark.parametrize("spoil", SPOILED)
def test_the_other_rows_lose_nothing(spoil: Callable[[np.ndarray], list[int]]) -> None:
    X, y = clusters()
    wrong = spoil(X.copy())
    clean = quality(X, y, wrong, FIT)
    assert clean > 0.8
    Z = X.copy()
    spoil(Z)
    with pytest.warns(UserWarning, match=r"Hasher\.fit: X holds .* far outside the usual range"):
        assert abs(quality(Z, y, wrong, FIT) - clean) < 0.02


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden": ()},
        {"hidden": (), "init": "itq"},
        {"preserve": 7.0, "similarity_weight": 2.0, "kl": 2.0},
        {"loss": "orthohash"},
        {"ema": 0.9, "precision": "bfloat16"},
    ],
)
@pytest.mark.parametrize("value", [1e6, 1e30])
def test_whatever_the_settings(settings: dict[str, Any], value: float) -> None:
    X, y = clusters()
    settings = FIT | settings
    clean = quality(X, y, [17], settings)
    X[17, 3] = value
    with pytest.warns(UserWarning, match="row 17, column 3"):
        assert quality(X, y, [17], settings) > clean - 0.02


@pytest.mark.parametrize("value", [1e6, 1e30])
@pytest.mark.parametrize("kind", ["without y", "embedding y"])
def test_without_labels(kind: str, value: float) -> None:
    X, y = clusters(spread=1.0)
    targets = None if kind == "without y" else X @ np.random.default_rng(1).normal(size=(32, 20)).astype(np.float32)
    settings = FIT | {"epochs": 30}
    clean = quality(X, y, [17], settings, targets)
    X[17, 3] = value
    with pytest.warns(UserWarning, match="row 17, column 3"):
        assert quality(X, y, [17], settings, targets) > clean - 0.02


def test_a_wrong_target_spoils_its_own_row_only() -> None:
    X, y = clusters(spread=1.0)
    targets = X.astype(np.float64) @ np.random.default_rng(1).normal(size=(32, 20))
    clean = quality(X, y, [17], FIT, targets)
    targets[17, 3] = 1e30
    assert quality(X, y, [17], FIT, targets) > clean - 0.02
    targets[17, 3] = 1e39  # infinite in float32
    with pytest.raises(ValueError, match=r"Hasher\.fit: y must be finite, got NaN or infinity in 1 of 400 rows"):
        Hasher(**FIT).fit(X, targets)


def test_embeddings_of_clinc150() -> None:
    data = clinc150("val")
    chosen = np.flatnonzero(data.intents < 30)
    X, y = data.embeddings[chosen].astype(np.float32), data.intents[chosen]
    clean = quality(X, y, [17], FIT)
    X[17, 3] = 1e6
    with pytest.warns(UserWarning, match=r"The first is 1e\+06 in row 17, column 3 "):
        assert abs(quality(X, y, [17], FIT) - clean) < 0.02


# What is said


def test_the_warning_names_place_value_and_treatment() -> None:
    X, y = blobs()
    X[9, 4] = 1e6
    with pytest.warns(UserWarning, match="far out") as one_value:
        Hasher(**QUICK).fit(X, y)
    assert re.fullmatch(
        r"Hasher\.fit: X holds 1 value far outside the usual range, in 1 of 240 rows. The first is 1e\+06 in row 9, "
        r"column 4 \(usual there: -[\d.]+ to [\d.]+\). Such a value counts as the mean of its column, in training and "
        r"in codes\. Correct it, or remove its row",
        str(one_value[0].message),
    )
    assert len(one_value) == 1
    assert one_value[0].filename == __file__
    X[9, 7], X[30, 1] = -1e7, 1e8
    with pytest.warns(
        UserWarning, match=r"3 values far outside the usual range, in 2 of 240 rows. The first is 1e\+06 in"
    ):
        Hasher(**QUICK).fit(X, y)


def test_validation_rows_are_measured_by_the_training_rows() -> None:
    X, y = blobs()
    held_out = blobs(60, seed=3)[0]
    scores = []
    for spoiled in (False, True):
        if spoiled:
            held_out[5, 2] = -1e6
            with pytest.warns(UserWarning, match=r"Hasher\.fit: validation X holds 1 value .* row 5, column 2"):
                scores.append(Hasher(**QUICK).fit(X, y, (held_out, y[:60])).history_.scores[-1])
        else:
            scores.append(Hasher(**QUICK).fit(X, y, (held_out, y[:60])).history_.scores[-1])
    assert scores[1] == pytest.approx(scores[0], abs=0.02)
    with pytest.warns(UserWarning, match=r"validation X holds 1 value"):  # of one row
        Hasher(**QUICK).fit(X, y, (held_out[5:6], y[5:6]))


def test_the_command_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    X, y = blobs()
    X[9, 4] = 1e6
    np.save("features.npy", X)
    np.save("labels.npy", y)
    train = ("train", "features.npy", "--labels", "labels.npy", "--bits", "8", "--epochs", "1")
    assert main([*train, "--out", "m.safetensors"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line.lower()]
    assert len(lines) == 1
    assert lines[0].startswith("fasthash: warning: Hasher.fit: X holds 1 value far outside the usual range")
    assert "1e+06 in row 9, column 4" in lines[0]


# Data that is as it should be


def ordinary(name: str, rows: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    normal = rng.normal(size=(rows, width))
    some = rng.integers(width, size=rows)
    return {
        "normal": normal,
        "float16": normal.astype(np.float16),
        "integers": rng.geometric(0.01, (rows, width)),
        "bytes": rng.integers(0, 256, (rows, width), dtype=np.uint8),
        "booleans": normal > 1,
        "one-hot": np.eye(width)[some],
        "one-hot and noise": np.eye(width)[some] + 0.01 * normal,
        "counts": rng.poisson(0.02, (rows, width)),
        "counts of words": rng.poisson(20 / np.arange(1, width + 1), (rows, width)),
        "exponential": np.exp(4 * normal) / np.exp(4 * normal).sum(1, keepdims=True),
        "lognormal": np.exp(normal),
        "very lognormal": np.exp(2 * normal),
        "a few lognormal columns": np.concatenate([np.exp(2 * normal[:, :2]), normal], 1),
        "t of 3": rng.standard_t(3, (rows, width)),
        "norms of two kinds": normal * np.where(rng.random(rows) < 0.02, 5, 1)[:, None],
        "a constant column": np.where(np.arange(width) == 1, 7.0, normal),
        "constant": np.full((rows, width), 3.0),
        "a rare flag": np.where(np.arange(width) == 1, rng.random(rows)[:, None] < 0.01, normal),
        "a large column": np.where(np.arange(width) == 1, 8.0, 1.0) * normal,
        "a column of another unit": np.where(np.arange(width) == 1, 1e6, 1.0) * normal,
        "far from 0": normal + 1000,
        "components": normal * np.arange(1, width + 1) ** -2.0,
    }[name]


NAMES = [
    "normal", "float16", "integers", "bytes", "booleans", "one-hot", "one-hot and noise", "counts", "counts of words",
    "exponential", "lognormal", "very lognormal", "a few lognormal columns", "t of 3", "norms of two kinds",
    "a constant column", "constant", "a rare flag", "a large column", "a column of another unit", "far from 0",
    "components",
]  # fmt: skip


@pytest.mark.parametrize(("rows", "width"), [(2, 3), (7, 4), (60, 8), (240, 12), (2000, 64)])
@pytest.mark.parametrize("name", NAMES)
def test_ordinary_data_stays_what_it_is(name: str, rows: int, width: int) -> None:
    X = torch.from_numpy(ordinary(name, rows, width))
    found = scan(X, "X", checksum=False)
    assert found.far_out is None
    assert found.limit is not None
    within = ((X.double() - found.mean) / found.deviation).abs() <= found.limit
    assert bool(within.all())
    if name != "a column of another unit" and "lognormal columns" not in name:
        mean, deviation = feature_scales(X)
        assert torch.equal(found.mean, mean)
        assert torch.equal(found.deviation, deviation)
        assert found.ordinary


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("float16", "bytes", "booleans", "constant")])
@pytest.mark.parametrize("value", [1e9, -1e9, 1e30])
def test_a_value_far_out_of_any_data_is_found(name: str, value: float) -> None:
    X = torch.from_numpy(ordinary(name, 240, 12)).double()
    clean = scan(X, "X", checksum=False)
    X[100, 5] = value
    found = scan(X, "X", checksum=False)
    assert found.far_out is not None
    assert (found.far_out.row, found.far_out.column, found.far_out.value) == (100, 5, value)
    assert (found.far_out.values, found.far_out.rows) == (1, 1)
    torch.testing.assert_close(found.deviation, clean.deviation, rtol=0.05, atol=0)


def test_heavy_tails_train() -> None:
    X, y = blobs()
    X += 0.1 * np.random.default_rng(0).standard_cauchy(X.shape).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a value may well be far out
        assert np.isfinite(Hasher(**QUICK).fit(X, y).transform(X)).all()


def test_a_column_of_another_unit_does_not_decide_alone() -> None:
    X, y = clusters()
    clean = quality(X, y, [], FIT)
    X[:, 3] *= 1e6
    assert quality(X, y, [], FIT) > clean - 0.02
    X[17, 5] = 1e5
    with pytest.warns(UserWarning, match="1 value .* row 17, column 5"):
        assert quality(X, y, [17], FIT) > clean - 0.02


def test_it_is_found_in_blocks_and_without_a_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    X, _ = blobs()
    X[200, 4], X[233, 1] = 1e6, -1e7
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    whole = scan(torch.from_numpy(X), "X", checksum=False)
    monkeypatch.setattr(features, "NUMBERS", 7 * 12)
    monkeypatch.setattr("fasthash._far_out.BLOCK", 5 * 12)
    found = scan(features.read_features(mapped, "fit", "X"), "X", checksum=False)
    assert found.far_out == whole.far_out
    assert found.far_out is not None
    assert (found.far_out.values, found.far_out.row, found.far_out.column) == (2, 200, 4)
    torch.testing.assert_close(found.mean, whole.mean)
    kept = np.abs(X) < 1e5
    centred = np.where(kept, X.astype(np.float64) - (X * kept).sum(0) / kept.sum(0), 0)
    assert float(found.deviation) == pytest.approx(np.sqrt((centred**2).sum() / kept.sum()), rel=1e-5)


def test_a_sample_of_rows_is_enough() -> None:
    rows = torch.randn(20_000, 300, generator=torch.Generator().manual_seed(0))
    chosen = sample_of(*rows.shape)
    assert 3_000 < len(chosen) < 4_096
    rows[12_345, 299] = 1e4
    _, _, found = find(rows, usual_of(rows[chosen], len(rows)))
    assert found is not None
    assert (found.values, found.row, found.column) == (1, 12_345, 299)


# Models


def test_queries_far_out_have_codes() -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK).fit(X, y)
    for value in (1e6, -1e30, 3e38):
        query = X[:4].copy()
        query[2, 5] = value
        outputs = hasher.transform(query)
        assert np.isfinite(outputs).all()
        np.testing.assert_array_equal(outputs[[0, 1, 3]], hasher.transform(X[:4])[[0, 1, 3]])
        assert np.isfinite(hasher.queries(query)).all()
        assert hasher.encode(query).shape == (4, 2)
        assert np.isfinite(hasher.transform(np.full((1, 12), value))).all()
    for value in (np.inf, -np.inf, np.nan):
        query[2, 5] = value
        with pytest.raises(ValueError, match=r"Hasher\.transform: X must be finite in float32, .* in 1 of 4 rows"):
            hasher.transform(query)


def test_models_keep_their_limits_and_units(tmp_path: Path) -> None:
    X, y = blobs()
    X[:, 3] *= 1e6
    X[9, 4] = 1e8
    with pytest.warns(UserWarning, match="row 9, column 4"):
        hasher = Hasher(**QUICK).fit(X, y)
    hasher.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(Hasher.load(tmp_path / "m.safetensors").transform(X), hasher.transform(X))


@pytest.mark.parametrize("loss", [None, "orthohash"])
def test_models_of_the_old_form_behave_as_they_did(tmp_path: Path, loss: str | None) -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK, loss=loss).fit(X, y)
    hasher.save(tmp_path / "new.safetensors")
    tensors, content = load_checkpoint(tmp_path / "new.safetensors")
    old = {name: value for name, value in tensors.items() if not name.endswith(".limit")}
    assert len(old) == len(tensors) - 1
    save_checkpoint(tmp_path / "old.safetensors", old, content)
    loaded = Hasher.load(tmp_path / "old.safetensors")
    np.testing.assert_array_equal(loaded.transform(X), hasher.transform(X))
    X[:, 0] = 1e5  # what was done before: it decides the code
    assert not np.array_equal(loaded.transform(X), hasher.transform(X))


def test_a_run_goes_on_beside_values_far_out(tmp_path: Path) -> None:
    X, y = blobs()
    X[9, 4] = 1e6
    runs = []
    for _ in range(2):
        with pytest.warns(UserWarning, match="row 9, column 4"):
            runs.append(Hasher(**QUICK, run_dir=tmp_path / "run").fit(X, y).transform(X))
    np.testing.assert_array_equal(*runs)


# Codes that need no training loop


@pytest.mark.parametrize("method", [baselines.lsh, baselines.pca_sign, baselines.itq])
@pytest.mark.parametrize("value", [1e6, -1e30])
def test_linear_codes(method: Callable[..., baselines.LinearCodes], value: float) -> None:
    X, y = clusters(spread=1.0)
    keep = np.arange(400) != 17

    def score(codes: np.ndarray) -> float:
        return float(mean_average_precision(codes[keep], codes[keep], y[keep], y[keep]))

    clean = score(method(X, 16).encode(X))
    X[17, 3] = value
    with pytest.warns(UserWarning, match=rf"{method.__name__}: X holds 1 value .* row 17, column 3") as said:
        codes = method(X, 16)
    assert said[0].filename == __file__
    assert score(codes.encode(X)) > clean - 0.02
    assert np.isfinite(codes.transform(X)).all()
