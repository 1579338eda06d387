"""CrossModalHasher: pairs in, codes that find each other out; missing modalities and labels; files, messages."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fasthash import CrossModalHasher, HammingIndex, hamming_topk, unpack_bits
from fasthash.losses import code_distance_bounds
from fasthash.losses.published import MultilevelTripletLoss
from fasthash.metrics import mean_average_precision
from fasthash.train import NotFittedError
from fasthash.train.loop import RunFolder
from fasthash.train.pair_encoder import PairEncoder, PairLoss, SideBySide

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTHS, LABELS = (12, 7), 5
QUICK: dict[str, Any] = {"bits": 16, "hidden": (24,), "epochs": 6, "batch_size": 32, "lr": 1e-2, "progress": False}
LONGER = {**QUICK, "epochs": 15}


def pairs(rows: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two modalities of other widths, each a map of its own of the labels, with noise; one or two labels each."""
    rng, maps = np.random.default_rng(seed), np.random.default_rng(99)
    y = np.zeros((rows, LABELS), dtype=np.int64)
    for _ in range(2):
        y[np.arange(rows), rng.integers(0, LABELS, rows)] = 1
    first, second = (4 * y @ maps.normal(size=(LABELS, width)) + rng.normal(size=(rows, width)) for width in WIDTHS)
    return first, second, y


def of_classes(rows: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng, maps = np.random.default_rng(seed), np.random.default_rng(99)
    y = np.arange(rows) % LABELS
    first, second = (4 * maps.normal(size=(LABELS, width))[y] + rng.normal(size=(rows, width)) for width in WIDTHS)
    return first, second, y


def same(a: CrossModalHasher, b: CrossModalHasher) -> bool:
    others = b.module_.state_dict()
    return all(torch.equal(value, others[name]) for name, value in a.module_.state_dict().items())


# What it learns


def test_codes_of_either_side_find_the_other() -> None:
    (first, second, y), (images, texts, v) = pairs(200), pairs(100, 1)
    hasher = CrossModalHasher(**LONGER).fit(first, second, y)
    codes = hasher.encode_first(first), hasher.encode_second(second)
    queries = hasher.encode_first(images), hasher.encode_second(texts)
    for query, database in ((0, 1), (1, 0), (0, 0), (1, 1)):
        chance = mean_average_precision(np.zeros((100, 2), np.uint8), np.zeros((200, 2), np.uint8), v, y)
        found = mean_average_precision(queries[query], codes[database], v, y)
        assert found > 0.9 > chance + 0.2
    untrained = CrossModalHasher(**{**QUICK, "epochs": 1, "lr": 1e-9}).fit(first, second, y)
    blind = mean_average_precision(untrained.encode_first(images), untrained.encode_second(second), v, y)
    assert blind < 0.75
    index = HammingIndex(bits=16)
    index.add(codes[1])
    near = index.search(queries[0], k=5)
    np.testing.assert_array_equal(near.ids, hamming_topk(queries[0], codes[1], 5).ids)
    shared = (v[:, None] * y[near.ids]).sum(-1)
    assert shared.mean() > 0.9 * v.sum(1).mean()


def test_outputs_and_codes() -> None:
    first, second, y = pairs()
    hasher = CrossModalHasher(**QUICK).fit(first, second, y)
    for X, transform, encode in (
        (first, hasher.transform_first, hasher.encode_first),
        (second, hasher.transform_second, hasher.encode_second),
    ):
        outputs, codes = transform(X), encode(X)
        assert (outputs.dtype, outputs.shape, codes.dtype, codes.shape) == (np.float32, (150, 16), np.uint8, (150, 2))
        assert 0 <= outputs.min() < outputs.max() <= 1
        np.testing.assert_array_equal(unpack_bits(codes, 16), outputs > 0.5)
        np.testing.assert_array_equal(encode(X[3]), codes[3:4])
        assert encode(X[:0]).shape == (0, 2)
        assert torch.equal(encode(torch.from_numpy(X)), torch.from_numpy(codes))
    assert hasher.n_features_ == WIDTHS
    assert hasher.classes_ is None
    assert len(hasher.history_.losses) == 6
    named = CrossModalHasher(**QUICK).fit(first, second, np.array(list("abcde"))[y.argmax(1)])
    assert named.classes_.tolist() == list("abcde")


def test_kinds_of_input_give_the_same_codes(tmp_path: Path) -> None:
    first, second, y = pairs()
    first, second = first.astype(np.float16).astype(np.float64), second.round()
    wanted = CrossModalHasher(**QUICK).fit(first, second, y)
    np.save(tmp_path / "first.npy", first.astype(np.float32))
    mapped = np.load(tmp_path / "first.npy", mmap_mode="r")
    for a, b, labels in (
        (first.astype(np.float16), second.astype(np.int64), y.astype(bool)),
        (torch.from_numpy(first), torch.from_numpy(second), torch.from_numpy(y)),
        (mapped, second.tolist(), y.tolist()),
    ):
        assert same(CrossModalHasher(**QUICK).fit(a, b, labels), wanted)


def test_the_distance_is_that_of_as_many_codes_as_label_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(MultilevelTripletLoss, "train", lambda self, mode=True: made.append(self) or self)
    first, second, y = pairs()
    one, y[:10] = {**QUICK, "epochs": 1}, 0
    sets = len(np.unique(y[y.any(1)], axis=0))
    for labels, delta, wanted in (
        (y, None, code_distance_bounds(16, sets)[0]),
        (np.r_[-np.ones(50, np.int64), np.arange(100) % 7], None, code_distance_bounds(16, 7)[0]),
        (y, 2.5, 2.5),
    ):
        CrossModalHasher(**one, delta=delta).fit(first, second, labels)
        assert made[-1].delta == wanted


# Missing modalities and labels


def test_a_row_of_nan_is_a_missing_modality_which_teaches_the_other() -> None:
    first, second, y = of_classes(300)
    lone = np.flatnonzero(y == 4)  # no pair has this class
    gone = second.copy()
    gone[lone] = np.nan
    others = np.flatnonzero(y != 4)
    query, _, v = of_classes(200, 1)
    found = {}
    for name, rows in (("with", np.arange(300)), ("without", others)):
        hasher = CrossModalHasher(**LONGER).fit(first[rows], gone[rows], y[rows])
        codes = hasher.encode_first(query), hasher.encode_first(first)
        found[name] = float(mean_average_precision(codes[0][v == 4], codes[1], v[v == 4], y))
        across = mean_average_precision(codes[0][v != 4], hasher.encode_second(second[others]), v[v != 4], y[others])
        assert across > 0.9
    assert found["with"] > 0.9
    assert found["with"] > found["without"] + 0.05


def test_a_missing_modality_has_no_outputs_and_changes_none() -> None:
    first, second, _ = (torch.from_numpy(X).float() for X in pairs(10))
    torch.manual_seed(0)
    module = PairEncoder(WIDTHS, 8, hidden=(6,), dropout=0.0)
    holes = [first.clone(), second.clone()]
    holes[0][[1, 2]], holes[1][[2, 5, 7]] = torch.nan, torch.nan
    for training in (True, False):
        module.train(training)
        found = module(SideBySide(*holes)[torch.arange(10)])
        for side, X in enumerate(holes):
            there = ~X[:, 0].isnan()
            assert found[~there, side].isnan().all()
            torch.testing.assert_close(found[there, side], module.encoders[side](X[there]))
    alone = torch.cat([torch.full((4, WIDTHS[0]), torch.nan), second[:4]], dim=1)
    alone[1, : WIDTHS[0]] = first[1]  # a single row, which a batch norm cannot take
    present = torch.tensor([[False, True], [True, True], [False, True], [False, True]])
    loss = PairLoss(MultilevelTripletLoss(8, pseudo=0.0))
    value = loss(module.train()(alone), torch.tensor([0, 1, 0, 1]), present)
    value.backward()
    assert value.isfinite()
    grads = [[p.grad for p in each.parameters()] for each in module.encoders]
    assert all(g is None or not g.any() for g in grads[0])
    assert all(g is not None and g.isfinite().all() for g in grads[1])


def test_a_row_without_a_label_teaches_that_its_codes_belong_together() -> None:
    torch.manual_seed(0)
    u = torch.randn(9, 2, 8, requires_grad=True)
    y = torch.tensor([0, 1, 2, 0, 1, 2, -1, -1, -1])
    present = torch.ones(9, 2, dtype=torch.bool)
    alone = PairLoss(MultilevelTripletLoss(8, pseudo=0.0, pairing=0.0, quantization=0.0))
    (grad,) = torch.autograd.grad(alone(u, y, present), u)
    assert not grad[6:].any()
    assert grad[:6].any()
    paired = PairLoss(MultilevelTripletLoss(8, pseudo=0.0, pairing=1.0, quantization=0.0))
    (grad,) = torch.autograd.grad(paired(u, y, present), u)
    assert grad[6:].any(-1).all()
    hot = torch.eye(4, dtype=torch.uint8)[torch.tensor([0, 1, 2, 0, 1, 2, 3, 3, 3])][:, :3]
    assert paired(u, hot, present) == paired(u, y, present)


@pytest.mark.parametrize("missing", [None, np.nan, -1])
def test_marks_of_missing_labels(missing: Any) -> None:
    first, second, y = of_classes()
    marked = [missing if row % 3 == 0 else int(label) for row, label in enumerate(y)]
    hot = np.eye(LABELS, dtype=np.int64)[y]
    hot[::3] = 0
    assert same(CrossModalHasher(**QUICK).fit(first, second, marked), CrossModalHasher(**QUICK).fit(first, second, hot))


@pytest.mark.parametrize("kind", ["one class", "equal rows", "zero rows", "a class for each", "two and two", "3 rows"])
def test_degenerate_input_gives_finite_losses_and_codes(kind: str) -> None:
    first, second, y = of_classes(40)
    if kind == "one class":
        y = np.zeros(40, np.int64)
    elif kind == "equal rows":
        first, second = first[:1].repeat(40, 0), second[:1].repeat(40, 0)
    elif kind == "zero rows":
        first, second = np.zeros_like(first), np.zeros_like(second)
    elif kind == "a class for each":
        y = np.arange(40)
    elif kind == "two and two":  # no pair at all
        first, second, y = first[:4].copy(), second[:4].copy(), np.array([0, 1, 0, 1])
        first[2:], second[:2] = np.nan, np.nan
    else:
        first, second, y = first[:3], second[:3], y[:3]
    hasher = CrossModalHasher(**QUICK).fit(first, second, y)
    assert np.isfinite(hasher.history_.losses).all()
    assert np.isfinite(hasher.transform_first(np.nan_to_num(first))).all()
    assert all(value.isfinite().all() for name, value in hasher.module_.state_dict().items() if "limit" not in name)


def test_values_far_out_count_as_the_mean() -> None:
    first, second, y = pairs()
    first[3, 2] = 1e12
    with pytest.warns(UserWarning, match=r"^CrossModalHasher.fit: first holds 1 value far outside the usual range"):
        hasher = CrossModalHasher(**LONGER).fit(first, second, y)
    codes = hasher.encode_first(first), hasher.encode_second(second)
    assert mean_average_precision(*codes, y, y) > 0.9


# Runs, seeds, files


@pytest.mark.parametrize("stop", [1, 4])
def test_going_on_gives_the_same_codes(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, y = pairs()
    second[::5] = np.nan
    settings, run = {**QUICK, "dropout": 0.2}, tmp_path / "run"
    wanted = CrossModalHasher(**settings).fit(first, second, y)
    interrupted = CrossModalHasher(**settings, run_dir=run)
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
            interrupted.fit(first, second, y)
    torch.manual_seed(stop)
    before = torch.get_rng_state()
    interrupted.fit(first, second, y)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(interrupted, wanted)
    assert interrupted.history_ == wanted.history_
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", lambda *_: pytest.fail("trained a finished run"))
        assert same(CrossModalHasher(**settings, run_dir=run).fit(first, second, y), wanted)
    loaded = CrossModalHasher.load(run / "model.safetensors")
    np.testing.assert_array_equal(loaded.encode_first(first), wanted.encode_first(first))
    with pytest.raises(ValueError, match=r"train: run_dir .* holds a run with cross_modal_hasher.seed 0, got 1"):
        CrossModalHasher(**settings, run_dir=run, seed=1).fit(first, second, y)
    other = second.copy()
    other[0], other[1] = second[1], np.nan  # the same rows there are, of other pairs
    for data, name in (
        ((first + 1, second, y), "data.first"),
        ((first, second * 2, y), "data.second"),
        ((first, other, y), "data.present"),
        ((first, second, y[::-1].copy()), "data.y"),
    ):
        with pytest.raises(ValueError, match=f"holds a run with {name}"):
            CrossModalHasher(**settings, run_dir=run).fit(*data)


def test_seeds_and_settings() -> None:
    first, second, y = pairs()
    one, again, other = (CrossModalHasher(**QUICK, seed=seed).fit(first, second, y) for seed in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)
    for change in ({"delta": 1.0}, {"pseudo": 0.0}, {"pairing": 0.0}, {"quantization": 1.0}, {"weight_decay": 0.5}):
        assert not same(CrossModalHasher(**QUICK, **change).fit(first, second, y), one), change
    hasher = CrossModalHasher(bits=16, delta=3.0)
    assert repr(hasher) == "CrossModalHasher(bits=16, delta=3.0)"
    assert CrossModalHasher(**hasher.get_params()).get_params() == hasher.get_params()
    assert hasher.set_params(bits=8).bits == 8


def test_save_and_load(tmp_path: Path) -> None:
    first, second, y = of_classes()
    first[:, 3] *= 1e4  # a unit of its own: a deviation for each feature
    path = tmp_path / "model.safetensors"
    for classes in (y, np.array(list("abcde"))[y], np.eye(LABELS, dtype=int)[y]):
        hasher = CrossModalHasher(**QUICK, delta=3.0).fit(first, second, classes)
        hasher.set_params(bits=99).save(path)  # what was fitted is saved
        loaded = CrossModalHasher.load(path)
        assert same(hasher, loaded)
        np.testing.assert_array_equal(loaded.encode_first(first), hasher.encode_first(first))
        np.testing.assert_array_equal(loaded.encode_second(second), hasher.encode_second(second))
        assert np.array_equal(loaded.classes_, hasher.classes_)
        assert (loaded.history_, loaded.n_features_) == (hasher.history_, WIDTHS)
        assert (loaded.bits, loaded.delta, loaded.hidden) == (16, 3.0, (24,))
    assert hasher.module_.encoders[0][0].deviation.shape == (WIDTHS[0],)
    loaded.save(tmp_path / "again.safetensors")
    assert same(CrossModalHasher.load(tmp_path / "again.safetensors"), hasher)


def test_files_of_others(tmp_path: Path) -> None:
    from fasthash import Hasher

    path = tmp_path / "model.safetensors"
    CrossModalHasher(**QUICK).fit(*pairs()).save(path)
    with pytest.raises(ValueError, match=r"Hasher.load: .* its format is 'fasthash-cross-modal-hasher'"):
        Hasher.load(path)
    with pytest.raises(FileNotFoundError, match=r"CrossModalHasher.load: .* does not exist"):
        CrossModalHasher.load(tmp_path / "none")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"CrossModalHasher.load: .* is damaged or not a fasthash cross-modal model"):
        CrossModalHasher.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"features": [12, 8]},
        {"features": [12]},
        {"features": [10**12, 7]},
        {"settings": {"bits": 17}},
        {"settings": {"hidden": []}},
        {"settings": {"unknown": 1}},
        {"losses": None},
    ],
    ids=str,
)
def test_damaged_content(change: dict[str, Any], tmp_path: Path) -> None:
    from fasthash._checkpoint import CROSS_MODAL, load_checkpoint, save_checkpoint

    path = tmp_path / "model.safetensors"
    CrossModalHasher(**QUICK).fit(*pairs()).save(path)
    tensors, content = load_checkpoint(path, CROSS_MODAL)
    change = {**change, "settings": content["settings"] | change.get("settings", {})}
    save_checkpoint(path, tensors, content | change, CROSS_MODAL)
    with pytest.raises(
        ValueError, match=r"^CrossModalHasher.load: .* is damaged or not a fasthash cross-modal model: "
    ):
        CrossModalHasher.load(path)


# Messages


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 0}, "bits must be between 1 and 4096, got 0"),
        ({"delta": -1.0}, "delta must be >= 0 and finite, got -1.0"),
        ({"pseudo": math.nan}, "pseudo must be >= 0 and finite, got nan"),
        ({"pairing": -1}, "pairing must be >= 0 and finite, got -1"),
        ({"quantization": -1}, "quantization must be >= 0 and finite, got -1"),
        ({"hidden": (0,)}, "a width of hidden must be at least 1, got 0"),
        ({"dropout": 1}, "dropout must be >= 0 and < 1, got 1"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 2}, "batch_size must be at least 3, got 2"),
        ({"lr": 0}, "lr must be > 0 and finite, got 0"),
        ({"weight_decay": -1}, "weight_decay must be >= 0 and finite, got -1"),
        ({"seed": -1}, "seed must be between 0 and 9223372036854775807, got -1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^CrossModalHasher.fit: {re.escape(message)}$"):
        CrossModalHasher(**settings).fit(*pairs())


def holed(X: np.ndarray, rows: Any, value: float = np.nan, columns: Any = slice(None)) -> np.ndarray:
    X = X.copy()
    X[rows, columns] = value
    return X


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b, y: (a, b[:-1], y), "second must have a row for each of the 150 of first, got 149"),
        (lambda a, b, y: (a[:2], b[:2], y[:2]), "first must have at least 3 rows, a triplet, got 2"),
        (lambda a, b, y: (a, b[0], y), "second must have shape [N, F] with F >= 1, got (7,)"),
        (lambda a, b, y: (a, b, y[:-1]), "y must have one row for each of the 150 rows"),
        (
            lambda a, b, y: (holed(a, 3, columns=2), b, y),
            "first must be finite in float32, got NaN or infinity in 1 of",
        ),
        (lambda a, b, y: (a, holed(b, 3, np.inf), y), "second must be finite in float32, got NaN or infinity in 1 of"),
        (
            lambda a, b, y: (holed(a, 3), holed(b, [3, 4]), y),
            "a pair must have a row of first or of second, got NaN in both in row 3",
        ),
        (
            lambda a, b, y: (a, holed(b, slice(1, None)), y),
            "second must have at least 2 rows that are not missing, got 1",
        ),
        (
            lambda a, b, y: (a, b, y.astype(float)),
            "y must be class labels or multi-hot integers, got 2-D floating point",
        ),
        (lambda a, b, y: (a, b, 2 * y), "y must hold 0 and 1 only"),
        (lambda a, b, y: (a, b, 0 * y), "y must have a label in at least one row, got none in 150 rows"),
        (lambda a, b, y: (a, b, -np.ones(150, int)), "y has no label in any of its 150 rows"),
    ],
)
def test_bad_values(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^CrossModalHasher.fit: {re.escape(message)}"):
        CrossModalHasher(**QUICK).fit(*change(*pairs()))


def test_bad_types() -> None:
    import scipy.sparse

    first, second, y = pairs()
    with pytest.raises(TypeError, match=r"^CrossModalHasher.fit: second must be .*, got NoneType"):
        CrossModalHasher(**QUICK).fit(first, None, y)
    with pytest.raises(TypeError, match=r"^CrossModalHasher.fit: first must be dense, got a sparse csr_matrix"):
        CrossModalHasher(**QUICK).fit(scipy.sparse.csr_matrix(first), second, y)
    with pytest.raises(TypeError, match=r"^CrossModalHasher.fit: y must be class labels or multi-hot labels, got None"):
        CrossModalHasher(**QUICK).fit(first, second, None)
    with pytest.raises(TypeError, match=r"^CrossModalHasher.fit: second must be real, got complex128"):
        CrossModalHasher(**QUICK).fit(first, torch.from_numpy(second + 0j), y)


def test_after_and_before_fit() -> None:
    first, second, y = pairs()
    names = ("transform_first", "transform_second", "encode_first", "encode_second")
    for method, given in (*((name, (first,)) for name in names), ("save", ("x",))):
        with pytest.raises(NotFittedError, match=rf"^CrossModalHasher.{method}: call fit first \(or CrossModalHasher"):
            getattr(CrossModalHasher(), method)(*given)
    hasher = CrossModalHasher(**QUICK).fit(first, second, y)
    with pytest.raises(ValueError, match=r"^CrossModalHasher.encode_first: X must have 12 features, got 7"):
        hasher.encode_first(second)
    with pytest.raises(ValueError, match=r"^CrossModalHasher.transform_second: X must have 7 features, got 12"):
        hasher.transform_second(first)
    with pytest.raises(ValueError, match=r"^CrossModalHasher.encode_second: X must be finite in float32, got NaN or"):
        hasher.encode_second(holed(second, 3))
    with pytest.raises(ValueError, match=r"^CrossModalHasher.set_params: 'width' is not one of bits, delta, "):
        hasher.set_params(width=3)
