"""TextHasher: bags of words and texts in, codes out; its loss term by term; degenerate input, files, messages."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from fasthash import TextHasher, unpack_bits
from fasthash.gradients import ESTIMATORS
from fasthash.metrics import mean_average_precision
from fasthash.train import NotFittedError
from fasthash.train.bernoulli_vae import PairwiseHashingLoss, TextEncoder
from fasthash.train.loop import RunFolder
from fasthash.train.validation import output_blocks
from fasthash.train.word_bags import read_bags, texts_of, vocabulary

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS, CLASSES = 40, 5
QUICK: dict[str, Any] = {"bits": 16, "hidden": (24,), "epochs": 4, "batch_size": 32, "lr": 1e-2, "progress": False}


def counts(rows: int = 120, seed: int = 0) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """Bags of about 8 words: each class has words of its own, half of a text is of them."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % CLASSES
    own = rng.multinomial(4, np.ones(8) / 8, size=rows)
    X = rng.multinomial(4, np.ones(WORDS) / WORDS, size=rows)
    for row, label in enumerate(y):
        X[row, 8 * label : 8 * label + 8] += own[row]
    return scipy.sparse.csr_matrix(X), y


def texts(rows: int = 60) -> tuple[list[str], np.ndarray]:
    X, y = counts(rows)
    dense = X.toarray()
    return [" ".join(f"word{w}" for w in np.repeat(np.arange(WORDS), row)) for row in dense], y


def same(a: TextHasher, b: TextHasher) -> bool:
    others = b.module_.state_dict()
    return all(torch.equal(value, others[name]) for name, value in a.module_.state_dict().items())


# What it learns


def test_codes_find_texts_of_the_same_class() -> None:
    (X, y), (Q, v) = counts(400), counts(100, 1)
    hasher = TextHasher(bits=16, hidden=(64,), epochs=20, batch_size=64, lr=1e-2, progress=False).fit(X, y)
    own = mean_average_precision(hasher.encode(Q), hasher.encode(X), v, y)
    blind = TextHasher(bits=16, hidden=(64,), epochs=20, batch_size=64, lr=1e-2, progress=False).fit(X)
    assert own > 0.85
    assert own > mean_average_precision(blind.encode(Q), blind.encode(X), v, y) + 0.1


@pytest.mark.parametrize("gradient", ESTIMATORS)
def test_outputs_and_codes(gradient: str) -> None:
    X, y = counts()
    hasher = TextHasher(**QUICK, gradient=gradient).fit(X, y)
    outputs, codes = hasher.transform(X), hasher.encode(X)
    assert (outputs.dtype, outputs.shape, codes.dtype, codes.shape) == (np.float32, (120, 16), np.uint8, (120, 2))
    assert 0 <= outputs.min() < outputs.max() <= 1
    np.testing.assert_array_equal(unpack_bits(codes, 16), outputs > 0.5)
    assert hasher.classes_.tolist() == list(range(CLASSES))
    assert (hasher.n_features_in_, hasher.words_) == (WORDS, None)
    assert len(hasher.history_.losses) == 4
    np.testing.assert_allclose(hasher.transform(X[7:9]), outputs[7:9], atol=1e-6)


def test_kinds_of_matrices_give_the_same_codes() -> None:
    X, y = counts()
    wanted = TextHasher(**QUICK).fit(X, y)
    codes = wanted.encode(X)
    twice = scipy.sparse.coo_matrix((np.r_[X.data, X.data] / 2, (np.tile(X.tocoo().row, 2), np.tile(X.indices, 2))))
    with_zeros = X.copy()
    with_zeros.data[::3] = 0
    for given in (
        X.toarray(),
        torch.from_numpy(X.toarray()),
        X.tocsc(),
        X.astype(np.float64),
        scipy.sparse.csr_array(X),
    ):
        assert same(TextHasher(**QUICK).fit(given, y), wanted)
        np.testing.assert_array_equal(wanted.encode(given), codes)
    assert twice.nnz == 2 * X.nnz
    np.testing.assert_array_equal(wanted.encode(twice), codes)
    before = with_zeros.data.copy()
    np.testing.assert_array_equal(wanted.encode(with_zeros), wanted.encode(with_zeros.toarray()))
    np.testing.assert_array_equal(with_zeros.data, before)  # what the caller has stays as it is


def test_counts_are_weighted_by_idf_and_weights_are_not() -> None:
    from sklearn.feature_extraction.text import TfidfTransformer

    X, y = counts()
    hasher = TextHasher(**QUICK).fit(X, y)
    transformer = TfidfTransformer().fit(X)
    np.testing.assert_allclose(hasher.module_.idf, transformer.idf_, rtol=1e-6)
    weighted = TextHasher(**QUICK).fit(transformer.transform(X), y)
    assert bool((weighted.module_.idf == 1).all())
    # The encoder sees the same rows of length 1.
    encoder = weighted.module_
    encoder.idf, idf = hasher.module_.idf, encoder.idf
    from_counts = torch.cat(list(output_blocks(encoder, read_bags(X, "", "X"), torch.device("cpu"))))
    encoder.idf = idf
    np.testing.assert_allclose(from_counts, weighted.transform(transformer.transform(X)), atol=1e-5)


def test_texts_are_the_counts_of_their_words() -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    rows, y = texts()
    rows[0] += " lonely"
    hasher = TextHasher(**QUICK).fit(rows, y)
    vectorizer = CountVectorizer(min_df=2).fit(rows)
    assert hasher.words_ == vectorizer.get_feature_names_out().tolist()
    assert "lonely" not in hasher.words_
    matrix = vectorizer.transform(rows)
    assert same(TextHasher(**QUICK).fit(matrix, y), hasher)
    np.testing.assert_array_equal(hasher.encode(rows), hasher.encode(matrix))
    np.testing.assert_array_equal(hasher.encode(np.array(rows)), hasher.encode(matrix))
    few = TextHasher(**QUICK, max_words=7).fit(rows, y)
    assert len(few.words_) == 7
    assert few.encode(["never seen", ""]).shape == (2, 2)


def test_very_large_and_very_small_weights() -> None:
    """A row counts by the shares of its words: their unit has no meaning."""
    X, y = counts()
    weights = X.astype(np.float64) * 0.75
    wanted = TextHasher(**QUICK).fit(weights, y)
    assert same(TextHasher(**QUICK).fit(weights * 2.0**-100, y), wanted)
    for unit in (2.0**-100, 2.0**100):
        np.testing.assert_array_equal(wanted.encode(weights * unit), wanted.encode(weights))
    below = TextHasher(**QUICK).fit(scipy.sparse.vstack([weights, weights[:1] * 1e-300]).tocsr(), None)  # 0 in float32
    assert np.isfinite(below.history_.losses).all()


def test_a_batch_is_all_that_is_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million words of 3,000 rows would take 12 GB."""
    rng = np.random.default_rng(0)
    wide = scipy.sparse.csr_matrix((np.ones(6_000), (np.arange(6_000) // 2, rng.integers(0, 1_000_000, 6_000))))
    for name in ("toarray", "todense"):
        monkeypatch.setattr(type(wide), name, lambda *_, **__: pytest.fail("dense"))
    bags = read_bags(wide, "", "X")
    assert (len(bags), bags.vocabulary) == wide.shape
    batch = bags[torch.tensor([5, 5, 2999])]
    assert batch.is_sparse
    assert batch.shape == (3, wide.shape[1])


def test_the_pair_term_reaches_the_encoder() -> None:
    X, y = counts()
    assert not same(TextHasher(**QUICK, pair=0.0).fit(X, y), TextHasher(**QUICK, pair=1.0).fit(X, y))
    bags = read_bags(X, "", "X")[torch.arange(120)]
    torch.manual_seed(0)
    encoder = TextEncoder(torch.ones(WORDS), 16, hidden=(8,))
    found = []
    for pair in (0.0, 1.0):
        loss = PairwiseHashingLoss(bits=16, words=WORDS, hidden=8, pair=pair, kl=0.0)
        loss.decoder.requires_grad_(False).weight.zero_()  # the words say nothing then
        encoder.zero_grad()
        loss(encoder(bags), bags, torch.from_numpy(y)).backward()
        found.append(float(encoder.words.grad.abs().max()))  # type: ignore[union-attr]
    assert found[0] < 1e-7 < 1e-4 < found[1]


# Degenerate input


@pytest.mark.parametrize("gradient", ESTIMATORS)
@pytest.mark.parametrize(
    "kind",
    ["one class", "no labels", "few labels", "empty documents", "equal rows", "classes of one", "no label in common"],
)
def test_degenerate_input_gives_finite_losses_and_codes(kind: str, gradient: str) -> None:
    X, y = counts(64)
    given: Any = y
    if kind == "one class":
        given = np.zeros(64, dtype=int)
    elif kind == "no labels":
        given = None
    elif kind == "few labels":
        given = np.where(np.arange(64) < 4, y, -1)
    elif kind == "empty documents":
        X = X.toarray()
        X[1:60] = 0
    elif kind == "equal rows":
        X = X.toarray()
        X[:] = X[0]
    elif kind == "classes of one":
        given = np.arange(64)
    else:
        given = np.eye(64, dtype=int)
        given[:32] = 0  # no label at all
    hasher = TextHasher(**QUICK, gradient=gradient).fit(X, given)
    assert np.isfinite(hasher.history_.losses).all()
    assert np.isfinite(hasher.transform(X)).all()
    assert hasher.encode(X).shape == (64, 2)


def test_multi_hot_labels() -> None:
    X, y = counts(200)
    hot = np.zeros((200, 10), dtype=np.int64)
    hot[np.arange(200), y] = 1
    hot[np.arange(200), 5 + np.arange(200) % 2] = 1
    hot[::10] = 0
    hasher = TextHasher(**{**QUICK, "epochs": 10}).fit(X, hot)
    assert hasher.classes_ is None
    assert np.isfinite(hasher.history_.losses).all()


def test_zero_rows_and_one_row() -> None:
    X, y = counts()
    hasher = TextHasher(**QUICK).fit(X, y)
    assert hasher.encode(X[:0]).shape == (0, 2)
    assert hasher.transform(X[:0]).shape == (0, 16)
    assert hasher.encode(X[:1]).shape == (1, 2)
    rows, v = texts()
    of_texts = TextHasher(**QUICK).fit(rows, v)
    assert of_texts.encode(["", "word1"]).shape == (2, 2)
    assert TextHasher(**QUICK).fit(X[:2], y[:2]).encode(X).shape == (120, 2)


def test_an_empty_document_has_one_code_and_nothing_of_its_neighbours() -> None:
    X, y = counts()
    dense = X.toarray()
    dense[[0, 7, 119]] = 0
    hasher = TextHasher(**QUICK).fit(dense, y)
    outputs = hasher.transform(dense)
    np.testing.assert_array_equal(outputs[0], outputs[7])
    np.testing.assert_array_equal(outputs[0], outputs[119])
    np.testing.assert_allclose(outputs[1:2], hasher.transform(dense[1:2]), atol=1e-6)


# Files


@pytest.mark.parametrize("stop", [1, 3])
def test_going_on_gives_the_same_bits(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = counts()
    wanted = TextHasher(**QUICK, dropout=0.2).fit(X, y)
    interrupted = TextHasher(**QUICK, dropout=0.2, run_dir=tmp_path / "run")
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
        assert same(TextHasher(**QUICK, dropout=0.2, run_dir=tmp_path / "run").fit(X, y), wanted)
    loaded = TextHasher.load(tmp_path / "run" / "model.safetensors")
    np.testing.assert_array_equal(loaded.encode(X), wanted.encode(X))
    for other, message in (
        ({"seed": 1}, "text_hasher.seed 0, got 1"),
        ({"pair": 3.0}, "text_hasher.pair .*, got 3.0"),
    ):
        with pytest.raises(ValueError, match=rf"train: run_dir .* holds a run with {message}"):
            TextHasher(**QUICK, dropout=0.2, run_dir=tmp_path / "run").set_params(**other).fit(X, y)
    for data, name in (((X * 2, y), "data.X"), ((X, y[::-1].copy()), "data.y")):
        with pytest.raises(ValueError, match=f"holds a run with {name}"):
            TextHasher(**QUICK, dropout=0.2, run_dir=tmp_path / "run").fit(*data)


def test_seeds() -> None:
    X, y = counts()
    first, again, other = (TextHasher(**QUICK, seed=seed).fit(X, y) for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


def test_save_and_load(tmp_path: Path) -> None:
    rows, y = texts()
    names = np.array(["a", "b", "c", "d", "e"])[y]
    hasher = TextHasher(**QUICK, gradient="arm").fit(rows, names)
    hasher.set_params(bits=8)  # counts from the next fit
    hasher.save(tmp_path / "model.safetensors")
    loaded = TextHasher.load(tmp_path / "model.safetensors")
    assert same(hasher, loaded)
    np.testing.assert_array_equal(loaded.encode(rows), hasher.encode(rows))
    assert loaded.words_ == hasher.words_
    assert loaded.classes_.tolist() == ["a", "b", "c", "d", "e"]
    assert loaded.history_ == hasher.history_
    assert (loaded.bits, loaded.gradient, loaded.hidden) == (16, "arm", (24,))
    loaded.save(tmp_path / "again.safetensors")
    assert same(TextHasher.load(tmp_path / "again.safetensors"), hasher)


def test_files_of_others(tmp_path: Path) -> None:
    from fasthash import Hasher

    X, y = counts()
    hasher = TextHasher(**QUICK).fit(X, y)
    path = tmp_path / "model.safetensors"
    hasher.save(path)
    with pytest.raises(ValueError, match=r"Hasher.load: .* its format is 'fasthash-text-hasher'"):
        Hasher.load(path)
    with pytest.raises(FileNotFoundError, match=r"TextHasher.load: .* does not exist"):
        TextHasher.load(tmp_path / "none")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"TextHasher.load: .* is damaged or not a fasthash text model"):
        TextHasher.load(path)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match=r"TextHasher.load: .* is damaged"):
        TextHasher.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"features": 39},
        {"features": 10**12},
        {"words": ["a"]},
        {"words": ["a"] * 40},
        {"settings": {"bits": 17}},
        {"settings": {"hidden": []}},
        {"settings": {"unknown": 1}},
        {"losses": ["x"]},
        {"losses": None},
    ],
    ids=str,
)
def test_damaged_content(change: dict[str, Any], tmp_path: Path) -> None:
    from fasthash._checkpoint import TEXT, load_checkpoint, save_checkpoint

    X, y = counts()
    path = tmp_path / "model.safetensors"
    TextHasher(**QUICK).fit(X, y).save(path)
    tensors, content = load_checkpoint(path, TEXT)
    change = {**change, "settings": content["settings"] | change.get("settings", {})}
    save_checkpoint(path, tensors, content | change, TEXT)
    with pytest.raises(ValueError, match=r"^TextHasher.load: .* is damaged or not a fasthash text model: "):
        TextHasher.load(path)


# Messages


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 0}, "bits must be between 1 and 4096, got 0"),
        ({"pair": -1.0}, "pair must be >= 0 and finite, got -1.0"),
        ({"classification": math.nan}, "classification must be >= 0 and finite, got nan"),
        ({"kl": -1}, "kl must be >= 0 and finite, got -1"),
        (
            {"gradient": "reinforce"},
            "gradient must be 'arm', 'disarm', 'gumbel' or 'straight_through', got 'reinforce'",
        ),
        ({"hidden": ()}, "hidden must have at least one width, got none"),
        ({"hidden": (0,)}, "a width of hidden must be at least 1, got 0"),
        ({"dropout": 1}, "dropout must be >= 0 and < 1, got 1"),
        ({"max_words": 0}, "max_words must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"lr": 0}, "lr must be > 0 and finite, got 0"),
        ({"seed": -1}, "seed must be between 0 and 9223372036854775807, got -1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    X, y = counts()
    with pytest.raises(ValueError, match=f"^TextHasher.fit: {message.replace('(', '.').replace(')', '.')}$"):
        TextHasher(**settings).fit(X, y)


def bad(X: scipy.sparse.csr_matrix, value: float) -> np.ndarray:
    dense = X.toarray().astype(float)
    dense[3, 5] = value
    return dense


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: bad(X, -2.0), "X must hold finite numbers >= 0, got -2.0 in row 3"),
        (lambda X: bad(X, np.nan), "X must hold finite numbers >= 0, got nan in row 3"),
        (lambda X: bad(X, np.inf), "X must hold finite numbers >= 0, got inf in row 3"),
        (lambda X: bad(X, 1e300), r"X must hold finite numbers >= 0, got 1e\+300 in row 3"),
        (lambda X: scipy.sparse.csr_matrix(bad(X, -1.0)), "X must hold finite numbers >= 0, got -1.0 in row 3"),
        (lambda X: X[:1], "X must have at least 2 rows, got 1"),
        (lambda X: X[:, :0], r"X must have shape \[N, V\] with V >= 1, got \(120, 0\)"),
        (lambda X: X.toarray()[0], r"X must have shape \[N, V\] with V >= 1, got \(40,\)"),
        (lambda X: X * 0, "X must have a word in at least one row, got none in 120 rows"),
        (lambda X: ["one", "two"] * 60, None),
        (lambda X: [f"word{i}" for i in range(120)], "X must have a word that 2 texts or more share, got none in 120"),
        (lambda X: ["", " "] * 60, "X must have a word that 2 texts or more share, got none in 120 texts"),
    ],
)
def test_bad_values(change: Any, message: str | None) -> None:
    X, y = counts()
    given = change(X)
    if message is None:
        TextHasher(**QUICK).fit(given, y)
        return
    with pytest.raises(ValueError, match=f"^TextHasher.fit: {message}"):
        TextHasher(**QUICK).fit(given, y if len(y) == len(given if isinstance(given, list) else y) else None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("one text", "X must be a list of texts or a matrix, got one str"),
        (["a text", 3], "X must hold texts alone, got int in row 1"),
        (["a text", None], "X must hold texts alone, got NoneType in row 1"),
        ([["a", "text"], ["b", "text"]], "X must be texts, or a matrix of numbers, got list of <U4"),
        (np.zeros((3, 2), complex), "X must be texts, or a matrix of numbers, got ndarray of complex128"),
        (scipy.sparse.csr_matrix(np.zeros((3, 2), complex)), "X must hold real numbers, got complex128"),
        (None, "X must be texts, or a matrix of numbers, got NoneType of object"),
    ],
)
def test_bad_types(given: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^TextHasher.fit: {message}"):
        TextHasher(**QUICK).fit(given)


def test_bad_labels() -> None:
    X, y = counts()
    with pytest.raises(ValueError, match=r"^TextHasher.fit: y must have one row for each of the 120 rows"):
        TextHasher(**QUICK).fit(X, y[:-1])
    with pytest.raises(ValueError, match=r"^TextHasher.fit: y must be class labels or multi-hot integers, got"):
        TextHasher(**QUICK).fit(X, np.zeros((120, 3)))
    with pytest.raises(ValueError, match=r"^TextHasher.fit: y must hold 0 and 1 only"):
        TextHasher(**QUICK).fit(X, np.full((120, 3), 2))
    with pytest.raises(ValueError, match=r"^TextHasher.fit: y has no label in any of its 120 rows"):
        TextHasher(**QUICK).fit(X, np.full(120, -1))
    with pytest.raises(TypeError, match=r"^TextHasher.fit: y must hold integer or string classes, got float64"):
        TextHasher(**QUICK).fit(X, y + 0.5)


def test_after_and_before_fit() -> None:
    X, y = counts()
    for method, given in (("transform", (X,)), ("encode", (X,)), ("save", ("x",))):
        with pytest.raises(NotFittedError, match=rf"^TextHasher.{method}: call fit first \(or TextHasher.load\)"):
            getattr(TextHasher(), method)(*given)
    hasher = TextHasher(**QUICK).fit(X, y)
    with pytest.raises(ValueError, match=r"^TextHasher.encode: X must have 40 columns, got 39"):
        hasher.encode(X[:, :39])
    with pytest.raises(TypeError, match=r"^TextHasher.transform: X must be a matrix, as in fit, got texts"):
        hasher.transform(["a text"])
    with pytest.raises(ValueError, match=r"^TextHasher.encode: X must hold word counts, whole numbers as in fit"):
        hasher.encode(X * 0.5)
    with pytest.raises(ValueError, match=r"^TextHasher.set_params: 'width' is not one of bits, pair, "):
        hasher.set_params(width=3)


def test_texts_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, y = texts()
    X, v = counts()
    hasher = TextHasher(**QUICK).fit(rows, y)
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    for method in (lambda: TextHasher(**QUICK).fit(rows, y), lambda: hasher.encode(rows)):
        with pytest.raises(ImportError, match=r"^TextHasher\.\w+: texts need scikit-learn, .*'fasthash\[text\]'"):
            method()
    TextHasher(**QUICK).fit(X, v)


def test_settings_by_name() -> None:
    hasher = TextHasher(16, gradient="arm")
    assert repr(hasher) == "TextHasher(bits=16, gradient='arm')"
    assert hasher.set_params(bits=8).get_params()["bits"] == 8
    from sklearn.base import clone

    assert clone(hasher).gradient == "arm"


def test_what_is_a_list_of_texts() -> None:
    import pandas as pd

    rows = ["play a song", "play music"]
    for given in (rows, tuple(rows), np.array(rows), np.array(rows, dtype=object), pd.Series(rows, index=[4, 7])):
        assert texts_of(given, "f", "X") == rows
    assert texts_of(np.zeros((2, 3)), "f", "X") is None
    assert vocabulary(rows, 10, "f") == ["play"]


# The page

PAGE = Path(__file__).resolve().parent.parent / "docs" / "texts.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the docs are not here")
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M)
    assert len(blocks) == 2
    for source in blocks:
        exec(compile(source, PAGE.name, "exec"), {"__name__": "page"})
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        assert (PAGE.parent / target).exists(), target
    for name in re.findall(r"`(\w+)`(?: \(default\))?(?:, `(\w+)`)? \|", text):
        assert set(filter(None, name)) <= set(ESTIMATORS), name
