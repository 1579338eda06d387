"""What Hasher says of wrong input: every message names the argument, the limit and the value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import EDGES, NAMES, QUICK, blobs, hierarchy, multi_hot

from fasthash import Hierarchy
from fasthash.train import Hasher

pytestmark = pytest.mark.usefixtures("one_thread")


def test_before_fit() -> None:
    X, _ = blobs()
    for method in ("transform", "encode", "queries", "save"):
        with pytest.raises(RuntimeError, match=rf"Hasher\.{method}: call fit first \(or Hasher.load\)"):
            getattr(Hasher(), method)(X)


def test_wrong_input_to_transform() -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK).fit(X, y)
    with pytest.raises(ValueError, match=r"Hasher\.transform: X must have 12 features, got 11"):
        hasher.transform(X[:, :11])
    with pytest.raises(ValueError, match=r"Hasher\.transform: X must have shape \[N, F\] with F >= 1, got \(12,\)"):
        hasher.transform(X[0])
    with pytest.raises(ValueError, match=r"Hasher\.encode: X must have shape \[N, F\] with F >= 1, got \(1, 240, 12\)"):
        hasher.encode(X[None])
    for value in (np.nan, np.inf, -np.inf):
        broken = X.copy()
        broken[[2, 7], 3] = value
        with pytest.raises(ValueError, match=r"Hasher\.encode: X must be finite .* infinity in 2 of 240 rows"):
            hasher.encode(broken)
    with pytest.raises(TypeError, match=r"Hasher\.transform: X must be a numeric array or tensor"):
        hasher.transform([["a"]])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"bits": 0}, ValueError, "bits must be between 1 and 4096, got 0"),
        ({"bits": 4097}, ValueError, "bits must be between 1 and 4096, got 4097"),
        ({"bits": 8.0}, TypeError, "bits must be an integer, got 8.0"),
        ({"batch_size": 1}, ValueError, "batch_size must be at least 2, got 1"),
        ({"init": "pca"}, ValueError, "init must be 'random' or 'itq', got 'pca'"),
        (
            {"init": "itq"},
            ValueError,
            r'init "itq" needs hidden=\(\), got hidden',
        ),
        ({"kl": "1"}, TypeError, "kl must be a number, got '1'"),
        ({"neighbors": 0}, ValueError, "neighbors must be at least 1, got 0"),
        ({"neighbors": 4}, ValueError, "neighbors needs target embeddings, got target 'labels'"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"dropout": 1.0}, ValueError, "dropout must be >= 0 and < 1, got 1.0"),
        ({"loss": 3}, TypeError, "loss must be a name, a module or None, got int"),
        ({"device": 0.5}, TypeError, "device must be a torch device"),
        ({"seed": -1}, ValueError, "seed must be between 0 and "),
        ({"draws": -1}, ValueError, "draws must be at least 0, got -1"),
        ({"draws": 0.5}, TypeError, "draws must be an integer, got 0.5"),
        ({"kl_k": 65}, ValueError, "kl_k must be between 1 and 64, got 65"),
        ({"kl_k": 48}, ValueError, r"kl_k must be between 1 and 47 \(the others of a batch\), got 48"),
        ({"supervision": "none"}, ValueError, "supervision must be 'full' or 'similarity', got 'none'"),
        ({"similarity": "flat"}, ValueError, "similarity must be 'listwise' or 'stress', got 'flat'"),
        ({"kl": -0.1}, ValueError, "kl must be >= 0 and finite, got -0.1"),
        ({"classification": float("nan")}, ValueError, "classification must be >= 0 and finite, got nan"),
        ({"soft_labels": -0.1}, ValueError, "soft_labels must be >= 0 and finite, got -0.1"),
        ({"soft_labels": "1"}, TypeError, "soft_labels must be a number, got '1'"),
        ({"temperature_z": 0.0}, ValueError, "temperature_z must be > 0 and finite, got 0.0"),
        ({"temperature_y": -1.0}, ValueError, "temperature_y must be > 0 and finite, got -1.0"),
        ({"hierarchy": EDGES}, TypeError, "hierarchy must be a fasthash.Hierarchy, got list"),
        ({"target": "class"}, ValueError, "target must be 'labels', 'multilabel' or 'embedding', got 'class'"),
        ({"target": "embedding"}, ValueError, r"y must be 2-D for target 'embedding', got shape \(240,\)"),
        (
            {"classification": 0, "similarity_weight": 0, "kl": 0},
            ValueError,
            "a term that applies to target 'labels' must have a weight above 0",
        ),
    ],
)
def test_wrong_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    X, y = blobs()
    with pytest.raises(error, match=rf"Hasher\.fit: {message}"):
        Hasher(**{**QUICK, **settings}).fit(X, y)


def test_wrong_settings_of_the_parts() -> None:
    X, y = blobs()
    with pytest.raises(ValueError, match=r"Hasher\.fit: a width of hidden must be at least 1, got 0"):
        Hasher(**{**QUICK, "hidden": (0,)}).fit(X, y)
    with pytest.raises(ValueError, match=r"Hasher\.fit: lr must be > 0 and finite, got 0\.0"):
        Hasher(**{**QUICK, "lr": 0.0}).fit(X, y)


def test_wrong_features() -> None:
    X, y = blobs()
    with pytest.raises(ValueError, match=r"Hasher\.fit: X must have shape \[N, F\] with F >= 1, got \(240,\)"):
        Hasher(**QUICK).fit(X[:, 0], y)
    with pytest.raises(ValueError, match=r"Hasher\.fit: X must have at least 2 rows, got 1"):
        Hasher(**QUICK).fit(X[:1], y[:1])
    with pytest.raises(TypeError, match=r"Hasher\.fit: X must be real, got complex64"):
        Hasher(**QUICK).fit(torch.from_numpy(X).cfloat(), y)
    for value in (np.nan, np.inf):
        broken = X.copy()
        broken[5, 0] = value
        with pytest.raises(ValueError, match=r"Hasher\.fit: X must be finite .* in 1 of 240 rows"):
            Hasher(**QUICK).fit(broken, y)
        with pytest.raises(ValueError, match=r"Hasher\.fit: validation X must be finite .* in 1 of 240 rows"):
            Hasher(**QUICK).fit(X, y, validation=(broken, y))
    with pytest.raises(ValueError, match=r"Hasher\.fit: X must be finite in float32, .* in 240 of 240 rows"):
        Hasher(**QUICK).fit(X.astype(np.float64) * 1e300, y)
    large = X.astype(np.float64)
    large[7, 0] = 1e39  # mean and deviation are finite in float32, the value is not
    with pytest.raises(ValueError, match=r"Hasher\.fit: X must be finite in float32, .* in 1 of 240 rows"):
        Hasher(**QUICK).fit(large, y)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (lambda y: y[:-1], ValueError, "y must have one row for each of the 240 rows of X, got 239"),
        (lambda y: 3, ValueError, "y must have one row for each of the 240 rows of X, got a single value"),
        (lambda y: y.astype(np.float32), TypeError, "y must hold integer or string classes, got float32; make "),
        (
            lambda y: np.array([*"ab", 3] * 80, dtype=object),
            TypeError,
            "y must hold integers or strings, all of one kind, got int, str",
        ),
        (lambda y: np.zeros((240, 2, 2)), ValueError, r"y must be 1-D or 2-D, got shape \(240, 2, 2\)"),
        (lambda y: np.eye(6, dtype=int)[y] * 2, ValueError, r"y must hold 0 and 1 only \(multi-hot labels\)"),
        (lambda y: np.full((240, 3), np.nan), ValueError, "y must be finite, got NaN or infinity in 240 of 240 rows"),
    ],
)
def test_wrong_targets(y: Any, error: type[Exception], message: str) -> None:
    X, labels = blobs()
    with pytest.raises(error, match=rf"Hasher\.fit: {message}"):
        Hasher(**QUICK).fit(X, y(labels))


def test_labels_that_are_not_in_the_hierarchy() -> None:
    X, y = blobs()
    names = NAMES[y].copy()
    names[3] = "cow"
    with pytest.raises(ValueError, match=r"Hasher\.fit: every label of y .* got 1 that are not, the first 'cow'"):
        Hasher(**QUICK, hierarchy=hierarchy()).fit(X, names)
    with pytest.raises(ValueError, match=r"every label of validation y .* got 1 that are not, the first 'cow'"):
        Hasher(**QUICK, hierarchy=hierarchy()).fit(X, NAMES[y], validation=(X, names))
    numbers = Hierarchy.from_edges([("all", str(i)) for i in range(6)])
    with pytest.raises(ValueError, match=r"the first 0 \('0' is; names are str or int, and 3 is not '3'\)"):
        Hasher(**QUICK, hierarchy=numbers).fit(X, y)
    for other in (multi_hot(y), X):
        with pytest.raises(ValueError, match=r"Hasher\.fit: a hierarchy is for 1-D class labels, got y of shape"):
            Hasher(**QUICK, hierarchy=hierarchy()).fit(X, other)
    with pytest.raises(ValueError, match=r"Hasher\.fit: a hierarchy needs class labels y, got None"):
        Hasher(**QUICK, hierarchy=hierarchy()).fit(X)
    with pytest.raises(ValueError, match=r"Hasher\.fit: target 'labels' needs y, got None"):
        Hasher(**QUICK, target="labels").fit(X)


def test_wrong_validation() -> None:
    X, y = blobs()
    for validation, error, message in (
        (X, TypeError, r"validation must be a pair \(Xv, yv\), got ndarray"),
        ((X[:, :3], y), ValueError, "validation X must have 12 features, got 3"),
        ((X[:0], y[:0]), ValueError, "validation X must have at least 1 row, got 0"),
        ((X, y[:5]), ValueError, "validation y must have one row for each of the 240 rows of X, got 5"),
        ((X, None), ValueError, "validation must have labels yv if y is given, and None"),
        ((X, multi_hot(y)), ValueError, "validation y must be 1-D for target 'labels'"),
        ((X, y.astype(str)), TypeError, "validation y must hold labels of the type that y holds, int, got str"),
    ):
        with pytest.raises(error, match=rf"Hasher\.fit: {message}"):
            Hasher(**QUICK).fit(X, y, validation=validation)
    with pytest.raises(ValueError, match=r"Hasher\.fit: validation y must have 9 columns, as y has, got 6"):
        Hasher(**QUICK).fit(X, multi_hot(y), validation=(X, np.eye(6, dtype=int)[y]))
    with pytest.raises(ValueError, match=r"Hasher\.fit: validation must have labels yv if y is given"):
        Hasher(**QUICK).fit(X, validation=(X, y))


def test_weights_are_numbers() -> None:
    X, y = blobs()
    with pytest.raises(TypeError, match=r"Hasher\.fit: kl must be a number, got '1'"):
        Hasher(**QUICK).set_params(kl="1").fit(X, y)
    for hidden, message in (
        (8, "hidden must be a sequence of integers"),
        ((1.5,), "a width of hidden must be an integer"),
    ):
        with pytest.raises(TypeError, match=rf"Hasher\.fit: {message}, got "):
            Hasher(**{**QUICK, "hidden": hidden}).fit(X, y)


def test_only_files_are_read_and_replaced(tmp_path: Path) -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK).fit(X, y)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe):
        with pytest.raises(OSError, match=r"Hasher\.save: .* exists and is not a regular file"):
            hasher.save(path)
        with pytest.raises(ValueError, match=r"Hasher\.load: .* is a folder or not a regular file"):
            Hasher.load(path)
    assert pipe.is_fifo()
