"""AsymmetricHasher: its loss against exact arithmetic, steps that never raise it, files, degenerate input, messages."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fasthash import AsymmetricHasher, Hasher, baselines, pack_bits, unpack_bits
from fasthash.metrics import mean_average_precision
from fasthash.train import NotFittedError
from fasthash.train.asymmetric_loss import AsymmetricLoss, fit_bit
from fasthash.train.loop import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK: dict[str, Any] = {"bits": 16, "hidden": (24,), "rounds": 2, "epochs": 2, "batch_size": 32, "progress": False}
WEIGHTS: list[dict[str, Any]] = [
    {},
    {"first": 3.7, "second": 40.0, "ridge": 0.3, "quantization": 9.1, "affinity": 2.0},
    {"prior": "row", "quantization": 5.0},
    {"first": 0.0},
    {"second": 0.0, "quantization": 0.0},
]


def rows(count: int = 120, seed: int = 0, classes: int = 5, features: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Classes that overlap somewhat."""
    centres = np.random.default_rng(99).normal(size=(classes, features))
    y = np.arange(count) % classes
    return (centres[y] + np.random.default_rng(seed).normal(size=(count, features))).astype(np.float32), y


def same(a: AsymmetricHasher, b: AsymmetricHasher) -> bool:
    others = b.module_.state_dict()
    equal = all(torch.equal(value, others[name]) for name, value in a.module_.state_dict().items())
    return equal and np.array_equal(a.codes_, b.codes_)


# The loss


def fractions(values: Tensor | np.ndarray) -> np.ndarray:
    return np.vectorize(Fraction, otypes=[object])(np.asarray(values, dtype=np.float64))


def exact_loss(codes: Tensor, u: Tensor, y: Tensor, w1: Tensor, w2: Tensor, **weights: Any) -> Fraction:
    """L as the docstring has it, all N^2 pairs in exact arithmetic; the batch is all rows."""
    given = {
        "first": 1.0,
        "second": 1.0,
        "ridge": 1.0,
        "quantization": 1.0,
        "affinity": 0.1,
        "prior": "class",
    } | weights
    first, second, ridge, quantization, affinity = (Fraction(value) for value in list(given.values())[:5])
    B, U, W1, W2 = (fractions(each) for each in (codes, u, w1, w2))
    count, bits, classes = *B.shape, W1.shape[1]
    Y = fractions(np.eye(classes)[y])
    others = (1 - Y) / Fraction(classes - 1) if classes > 1 else 0 * Y
    S = fractions(y[:, None] == y) / Y.sum(0)[y][:, None]
    A = S if given["prior"] == "class" else fractions(np.eye(count))
    of_labels = first * ((Y - B @ W1) ** 2).sum() + second * ((others - B @ W2) ** 2).sum()
    of_labels += ridge * ((W1**2).sum() + (W2**2).sum())
    to_codes = (A * ((U[:, None] - B[None]) ** 2).sum(2)).sum()
    to_others = (S * ((U[:, None] - U[None]) ** 2).sum(2)).sum()
    return (of_labels + (quantization * to_codes + affinity * to_others) / bits) / count


def problem(seed: int, count: int = 9, bits: int = 6, classes: int = 3, **weights: Any) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    u = 2 * torch.rand(count, bits, generator=generator, dtype=torch.float64) - 1
    loss = AsymmetricLoss(torch.rand(count, bits, generator=generator) < 0.5, y, **weights)
    return loss, u, y


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_no_update_of_a_bit_raises_the_loss(seed: int, weights: dict[str, Any]) -> None:
    """In exact arithmetic, before and after each; lower wherever a bit changed, and no other choice is better."""
    loss, u, y = problem(seed, **weights)
    codes = loss.codes.double()
    w1, w2 = loss.regressions(codes)
    pull, gram = loss.pull(u, w1, w2), loss.gram(w1, w2)
    value, changes = exact_loss(codes, u, y, w1, w2, **weights), 0
    for _ in range(2):
        for bit in range(codes.shape[1]):
            before = codes.clone()
            fit_bit(codes, bit, pull, gram)
            after = exact_loss(codes, u, y, w1, w2, **weights)
            changed = int((before != codes).sum())
            assert after < value if changed else after == value
            value, changes = after, changes + changed
            row = bit % len(codes)
            flipped = codes.clone()
            flipped[row, bit] *= -1
            assert exact_loss(flipped, u, y, w1, w2, **weights) >= value
    assert changes > 0
    assert bool((codes.abs() == 1).all())


def test_a_tie_leaves_the_bit_as_it_is() -> None:
    codes = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    before = codes.clone()
    fit_bit(codes, 0, torch.zeros(2, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    assert torch.equal(codes, before)


@pytest.mark.parametrize("classes", [1, 2, 3, 9])
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_the_loss_is_that_of_the_formulas(weights: dict[str, Any], classes: int) -> None:
    loss, u, y = problem(0, classes=classes, **weights)
    every = torch.arange(len(y))
    for _ in range(3):
        w1, w2 = loss.regressions(loss.codes.double())
        loss.fit_codes((u + 1) / 2)
        wanted = float(exact_loss(loss.codes.double(), u, y, w1, w2, **weights))
        assert float(loss((u + 1) / 2, every)) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_the_regressions_are_the_best(weights: dict[str, Any]) -> None:
    loss, _, _ = problem(1, **weights)
    codes = loss.codes.double()
    best = loss.regressions(codes)
    least = loss.regression_loss(codes, *best)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        others = (w + 0.01 * torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in best)
        assert loss.regression_loss(codes, *others) > least


def test_fitting_codes_again_never_raises_the_loss() -> None:
    loss, u, y = problem(2, count=40, bits=12, classes=4)
    values = []
    for _ in range(5):
        codes = loss.codes.double()
        values.append(float(exact_loss(codes, u, y, *loss.regressions(codes))))
        loss.fit_codes((u + 1) / 2)
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(values))
    assert values[-1] < values[0]


def test_the_gradient_is_that_of_the_outputs() -> None:
    loss, u, _ = problem(3)
    loss.fit_codes((u + 1) / 2)
    chosen = torch.tensor([0, 4, 7, 3, 2])
    z = ((u + 1) / 2)[chosen].requires_grad_()
    assert torch.autograd.gradcheck(lambda values: loss.double()(values, chosen), z)


def test_by_class_an_output_is_drawn_to_the_mean_of_its_class_and_by_row_to_its_own_code() -> None:
    for prior in ("class", "row"):
        loss, u, y = problem(4, prior=prior, affinity=0.0)
        z = ((u + 1) / 2).requires_grad_()
        loss(z, torch.arange(len(y))).backward()
        codes = loss.codes.double()
        goal = torch.stack([codes[y == own].mean(0) for own in y]) if prior == "class" else codes
        torch.testing.assert_close(z.grad, 4 * (u - goal) / u.numel(), atol=1e-6, rtol=0)


# What it learns


def test_codes_find_rows_of_the_same_class() -> None:
    (X, y), (Q, v) = rows(400), rows(100, 1)
    hasher = AsymmetricHasher(bits=16, hidden=(64,), rounds=5, batch_size=64, progress=False).fit(X, y)
    found = mean_average_precision(hasher.encode(Q), hasher.encode(X), v, y)
    itq = baselines.itq(X, 16)
    assert found > 0.85
    assert found > mean_average_precision(itq.encode(Q), itq.encode(X), v, y) + 0.2
    assert mean_average_precision(hasher.encode(Q), hasher.codes_, v, y) >= found  # those know the labels


def test_outputs_and_codes() -> None:
    X, y = rows()
    hasher = AsymmetricHasher(**QUICK).fit(X, y)
    outputs, codes = hasher.transform(X), hasher.encode(X)
    assert (outputs.dtype, outputs.shape, codes.dtype, codes.shape) == (np.float32, (120, 16), np.uint8, (120, 2))
    assert (hasher.codes_.dtype, hasher.codes_.shape) == (np.uint8, (120, 2))
    np.testing.assert_array_equal(unpack_bits(codes, 16), outputs > 0.5)
    assert hasher.classes_.tolist() == list(range(5))
    assert hasher.n_features_in_ == 20
    assert len(hasher.history_.losses) == 4
    np.testing.assert_array_equal(hasher.encode(X[7]), codes[7:8])
    tensors = hasher.encode(torch.from_numpy(X))
    assert isinstance(tensors, Tensor)
    np.testing.assert_array_equal(tensors, codes)
    names = np.array(["a", "b", "c", "d", "e"])[y]
    assert same(AsymmetricHasher(**QUICK).fit(torch.from_numpy(X), names), hasher)


def test_codes_are_fitted_before_each_round_and_after_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows()
    fit_codes, seen = AsymmetricLoss.fit_codes, []

    def counting(self: AsymmetricLoss, z: Tensor) -> None:
        fit_codes(self, z)
        seen.append((z.clone(), pack_bits((self.codes > 0).float())))

    monkeypatch.setattr(AsymmetricLoss, "fit_codes", counting)
    hasher = AsymmetricHasher(**{**QUICK, "rounds": 3}).fit(X, y)
    assert len(seen) == 4
    last, codes = seen[-1]
    np.testing.assert_array_equal(last, hasher.transform(X))  # in evaluation mode, of all rows
    np.testing.assert_array_equal(codes, hasher.codes_)
    assert all(not torch.equal(a[0], b[0]) for a, b in itertools.pairwise(seen))


def test_more_bits_than_features() -> None:
    X, y = rows()
    assert AsymmetricHasher(**{**QUICK, "bits": 36}).fit(X, y).codes_.shape == (120, 5)


# Degenerate input


@pytest.mark.parametrize("prior", ["class", "row"])
@pytest.mark.parametrize("kind", ["one class", "equal rows", "zero rows", "classes of one", "two rows", "one feature"])
def test_degenerate_input_gives_finite_losses_and_codes(kind: str, prior: str) -> None:
    X, y = rows(40)
    if kind == "one class":
        y = np.zeros(40, dtype=int)
    elif kind == "equal rows":
        X[:] = X[0]
    elif kind == "zero rows":
        X[3:] = 0
    elif kind == "classes of one":
        y = np.arange(40)
    elif kind == "two rows":
        X, y = X[:2], y[:2]
    else:
        X = X[:, :1]
    hasher = AsymmetricHasher(**QUICK, prior=prior).fit(X, y)
    assert np.isfinite(hasher.history_.losses).all()
    assert np.isfinite(hasher.transform(X)).all()
    assert hasher.codes_.shape == hasher.encode(X).shape == (len(X), 2)
    assert hasher.encode(X[:0]).shape == (0, 2)


def test_equal_rows_of_a_class_have_equal_codes() -> None:
    X, y = rows()
    X[[5, 10, 115]] = X[0]
    codes = AsymmetricHasher(**QUICK).fit(X, y).codes_
    np.testing.assert_array_equal(codes[[5, 10, 115]], codes[[0, 0, 0]])


def test_a_value_far_out_counts_as_the_mean() -> None:
    X, y = rows(400)
    X[3, 2] = 1e30
    with pytest.warns(UserWarning, match=r"^AsymmetricHasher.fit: X holds 1 value far outside the usual range"):
        hasher = AsymmetricHasher(**QUICK).fit(X, y)
    assert np.isfinite(hasher.transform(X)).all()


# Files


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_going_on_gives_the_same_codes(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows()
    wanted = AsymmetricHasher(**QUICK).fit(X, y)
    interrupted = AsymmetricHasher(**QUICK, run_dir=tmp_path / "run")
    save, saved = RunFolder.save, 0

    def stopping(self: RunFolder, *state: Any) -> None:
        nonlocal saved
        save(self, *state)
        saved += 1
        if saved == stop:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            interrupted.fit(X, y)
    torch.manual_seed(stop)
    before = torch.get_rng_state()
    interrupted.fit(X, y)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(interrupted, wanted)
    assert interrupted.history_ == wanted.history_
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", lambda *_: pytest.fail("trained a finished run"))
        assert same(AsymmetricHasher(**QUICK, run_dir=tmp_path / "run").fit(X, y), wanted)
    loaded = AsymmetricHasher.load(tmp_path / "run" / "model.safetensors")
    assert same(loaded, wanted)
    with pytest.raises(ValueError, match=r"^train: run_dir .* holds a run with asymmetric_hasher.seed 0, got 1"):
        AsymmetricHasher(**QUICK, run_dir=tmp_path / "run", seed=1).fit(X, y)
    for data, name in (((X * 2, y), "data.X"), ((X, y[::-1].copy()), "data.y")):
        with pytest.raises(ValueError, match=f"holds a run with {name}"):
            AsymmetricHasher(**QUICK, run_dir=tmp_path / "run").fit(*data)


def test_seeds() -> None:
    X, y = rows()
    first, again, other = (AsymmetricHasher(**QUICK, seed=seed).fit(X, y) for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_save_and_load(unit: float, tmp_path: Path) -> None:
    X, y = rows()
    X[:, 0] *= unit  # of another unit: each feature then has a deviation of its own
    hasher = AsymmetricHasher(**QUICK, prior="row").fit(X, np.array(["a", "b", "c", "d", "e"])[y])
    assert hasher.module_[0].deviation.dim() == (unit > 1)
    hasher.set_params(bits=8)  # counts from the next fit
    hasher.save(tmp_path / "model.safetensors")
    loaded = AsymmetricHasher.load(tmp_path / "model.safetensors")
    assert same(hasher, loaded)
    np.testing.assert_array_equal(loaded.transform(X), hasher.transform(X))
    assert loaded.classes_.tolist() == ["a", "b", "c", "d", "e"]
    assert loaded.history_ == hasher.history_
    assert (loaded.bits, loaded.prior, loaded.hidden) == (16, "row", (24,))
    loaded.save(tmp_path / "again.safetensors")
    assert same(AsymmetricHasher.load(tmp_path / "again.safetensors"), hasher)


def test_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    AsymmetricHasher(**QUICK).fit(*rows()).save(path)
    with pytest.raises(ValueError, match=r"Hasher.load: .* its format is 'fasthash-asymmetric-hasher'"):
        Hasher.load(path)
    with pytest.raises(FileNotFoundError, match=r"AsymmetricHasher.load: .* does not exist"):
        AsymmetricHasher.load(tmp_path / "none")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"AsymmetricHasher.load: .* is damaged or not a fasthash AsymmetricHasher"):
        AsymmetricHasher.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"features": 19},
        {"features": 10**12},
        {"settings": {"bits": 17}},
        {"settings": {"bits": 40}},
        {"settings": {"hidden": [5]}},
        {"settings": {"unknown": 1}},
        {"losses": None},
        {"classes": 3},
    ],
    ids=str,
)
def test_damaged_content(change: dict[str, Any], tmp_path: Path) -> None:
    from fasthash._checkpoint import ASYMMETRIC, load_checkpoint, save_checkpoint

    path = tmp_path / "model.safetensors"
    AsymmetricHasher(**QUICK).fit(*rows()).save(path)
    tensors, content = load_checkpoint(path, ASYMMETRIC)
    change = {**change, "settings": content["settings"] | change.get("settings", {})}
    save_checkpoint(path, tensors, content | change, ASYMMETRIC)
    with pytest.raises(ValueError, match=r"^AsymmetricHasher.load: .* is damaged or not a fasthash AsymmetricHasher: "):
        AsymmetricHasher.load(path)


# Messages


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 0}, "bits must be between 1 and 4096, got 0"),
        ({"first": -1.0}, "first must be >= 0 and finite, got -1.0"),
        ({"second": math.nan}, "second must be >= 0 and finite, got nan"),
        ({"ridge": 0}, "ridge must be > 0 and finite, got 0"),
        ({"quantization": -1}, "quantization must be >= 0 and finite, got -1"),
        ({"affinity": -1}, "affinity must be >= 0 and finite, got -1"),
        ({"quantization": 0, "affinity": 0}, "quantization or affinity must be above 0, got 0 for both"),
        ({"prior": "graph"}, "prior must be 'class' or 'row', got 'graph'"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"hidden": (0,)}, "a width of hidden must be at least 1, got 0"),
        ({"dropout": 1}, "dropout must be >= 0 and < 1, got 1"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"lr": 0}, "lr must be > 0 and finite, got 0"),
        ({"seed": -1}, "seed must be between 0 and 9223372036854775807, got -1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^AsymmetricHasher.fit: {message}$"):
        AsymmetricHasher(**settings).fit(*rows())


def test_bad_data() -> None:
    X, y = rows()
    nan = X.copy()
    nan[3, 5] = np.nan
    for data, message in (
        ((nan, y), "X must be finite in float32, got NaN or infinity in 1 of 120 rows"),
        ((X[:1], y[:1]), "X must have at least 2 rows, got 1"),
        ((X[:0], y[:0]), "X must have at least 2 rows, got 0"),
        ((X[0], y), r"X must have shape \[N, F\] with F >= 1, got \(20,\)"),
        ((X, None), "y must have a class label for each row, got None"),
        ((X, y[:-1]), "y must have one row for each of the 120 rows of X, got 119"),
        ((X, np.where(y == 2, -1, y)), "y must have a class label for each row, got none in row 2"),
        ((X, np.eye(5, dtype=int)[y]), r"y must be 1-D for target 'labels', got shape \(120, 5\)"),
    ):
        with pytest.raises(ValueError, match=f"^AsymmetricHasher.fit: {message}"):
            AsymmetricHasher(**QUICK).fit(*data)
    for wrong, message in (
        ((X, y + 0.5), "y must hold integer or string classes"),
        ((1j * X, y), "X must be a numeric array"),
    ):
        with pytest.raises(TypeError, match=f"^AsymmetricHasher.fit: {message}"):
            AsymmetricHasher(**QUICK).fit(*wrong)


def test_before_and_after_fit() -> None:
    X, y = rows()
    for method, given in (("transform", (X,)), ("encode", (X,)), ("save", ("x",))):
        with pytest.raises(NotFittedError, match=rf"^AsymmetricHasher.{method}: call fit first"):
            getattr(AsymmetricHasher(), method)(*given)
    hasher = AsymmetricHasher(**QUICK).fit(X, y)
    with pytest.raises(ValueError, match=r"^AsymmetricHasher.encode: X must have 20 features, got 19"):
        hasher.encode(X[:, :19])
    X[5, 1] = np.inf
    with pytest.raises(ValueError, match=r"^AsymmetricHasher.transform: X must be finite in float32, got NaN or inf"):
        hasher.transform(X)
    with pytest.raises(ValueError, match=r"^AsymmetricHasher.set_params: 'width' is not one of bits, first, "):
        hasher.set_params(width=3)


def test_settings_by_name() -> None:
    hasher = AsymmetricHasher(32, affinity=0.5)
    assert repr(hasher) == "AsymmetricHasher(bits=32, affinity=0.5)"
    assert hasher.set_params(prior="row").get_params()["prior"] == "row"
