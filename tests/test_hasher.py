"""Hasher: every kind of target, scikit-learn's manners, the model file, and what it says of wrong input."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hasher_cases import EDGES, FEATURES, NAMES, QUICK, blobs, hierarchy, multi_hot, targets_of

import fasthash
from fasthash import Hierarchy, baselines, hamming_distances, pack_bits
from fasthash.evaluate import overlap_at
from fasthash.metrics import mean_average_precision
from fasthash.train import Hasher
from fasthash.train import hasher as hasher_module

pytestmark = pytest.mark.usefixtures("one_thread")


KINDS = [
    "integers", "strings", "hierarchy", "objects", "list", "booleans", "tensor", "multilabel", "multilabel booleans",
    "multilabel floats", "embedding", "embedding integers", "nothing",
]  # fmt: skip


def weights(hasher: Hasher) -> dict[str, torch.Tensor]:
    return hasher.module_.state_dict()


def same_weights(a: Hasher, b: Hasher) -> bool:
    return all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items())


# What it learns


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("supervision", ["full", "similarity"])
def test_every_kind_of_target(kind: str, supervision: str) -> None:
    X, _ = blobs()
    y, settings = targets_of(kind)
    hasher = Hasher(**QUICK, **settings, supervision=supervision)
    assert hasher.fit(X, y) is hasher
    z, codes = hasher.transform(X), hasher.encode(X)
    assert isinstance(z, np.ndarray)
    assert z.shape == (240, 16)
    assert z.dtype == np.float32
    assert (z >= 0).all()
    assert (z <= 1).all()
    assert codes.shape == (240, 2)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(fasthash.unpack_bits(codes, 16), z > 0.5)
    assert hasher.n_features_in_ == FEATURES
    assert len(hasher.history_.losses) == 4


@pytest.mark.parametrize("settings", [{}, {"supervision": "similarity"}, {"similarity": "stress"}, {"kl": 0.0}])
def test_codes_follow_the_hierarchy(settings: dict[str, Any]) -> None:
    X, y = blobs(480)
    Xt, yt = blobs(120, seed=1)
    hasher = Hasher(32, hierarchy(), hidden=(32,), epochs=15, batch_size=96, lr=1e-2, **settings).fit(X, NAMES[y])
    distances = hamming_distances(hasher.encode(Xt), hasher.encode(X))
    same, pair = yt[:, None] == y, yt[:, None] // 2 == y // 2
    means = [distances[where].mean() for where in (same, pair & ~same, ~pair)]
    assert means[0] + 1 < means[1] < means[2] - 1
    assert mean_average_precision(hasher.encode(Xt), hasher.encode(X), yt, y) > 0.8


def test_embeddings_only_keeps_neighbours() -> None:
    """Twelve directions of unequal size inside 64 dimensions, as embeddings have: better than random hyperplanes."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(600, 12)) * np.linspace(3, 0.5, 12)
    X = (latent @ rng.normal(size=(12, 64)) + 0.5 * rng.normal(size=(600, 64))).astype(np.float32)
    learned, random = Hasher(24, epochs=30, batch_size=100, lr=1e-2).fit(X), baselines.lsh(X, 24)
    one_class = [0] * len(X)
    found, chance = (
        overlap_at(codes, codes, X, X, one_class, one_class, 10, exclude_self=True)
        for codes in (learned.encode(X), random.encode(X))
    )
    assert found > chance + 0.08


def test_the_kl_term_keeps_more_codes_apart() -> None:
    X, y = blobs(480)
    counts = [len(np.unique(Hasher(**{**QUICK, "epochs": 20}, kl=kl).fit(X, y).encode(X), axis=0)) for kl in (0.0, 1.0)]
    assert counts[1] > 1.5 * counts[0]


@pytest.mark.parametrize("left", ["classification", "similarity_weight", "kl", "preserve"])
def test_any_weight_may_be_zero(left: str) -> None:
    X, y = blobs()
    terms = {"classification": 0.0, "similarity_weight": 0.0, "kl": 0.0, "preserve": 0.0, left: 1.0}
    assert Hasher(**QUICK, **terms).fit(X, y).encode(X).shape == (240, 2)


def test_similarity_supervision_never_sees_class_ids() -> None:
    X, y = blobs()
    renamed = {"cat": "z", "dog": "b", "car": "y", "bus": "a", "elm": "c", "oak": "x"}  # another alphabetical order
    edges = [(parent, renamed[child]) for parent, child in EDGES]
    other = np.array([renamed[name] for name in NAMES])
    results = {
        supervision: (
            Hasher(**QUICK, hierarchy=hierarchy(), supervision=supervision).fit(X, NAMES[y]),
            Hasher(**QUICK, hierarchy=Hierarchy.from_edges(edges), supervision=supervision).fit(X, other[y]),
        )
        for supervision in ("full", "similarity")
    }
    assert same_weights(*results["similarity"])
    assert not same_weights(*results["full"])  # a classifier does see them


def test_similarity_supervision_of_plain_labels_and_multi_hot() -> None:
    X, y = blobs()
    order = np.array([3, 5, 0, 1, 4, 2])
    settings = {**QUICK, "supervision": "similarity"}
    assert same_weights(Hasher(**settings).fit(X, y), Hasher(**settings).fit(X, order[y]))
    columns = multi_hot(y)
    assert same_weights(Hasher(**settings).fit(X, columns), Hasher(**settings).fit(X, columns[:, ::-1]))


def test_small_sets_are_trained_for_more_epochs() -> None:
    X, y = blobs(60)
    quick = {**QUICK, "epochs": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hasher_module, "STEPS", 40)
        assert len(Hasher(**{**quick, "batch_size": 30}).fit(X, y).history_.losses) == 20
        assert len(Hasher(**{**quick, "batch_size": 2, "kl_k": 1}).fit(X, y).history_.losses) == hasher_module.EPOCHS
        # fewer rows than a batch: all of them are one
        assert len(Hasher(**{**quick, "batch_size": 1000}).fit(X, y).history_.losses) == 40
        # two-part codes and an encoder without hidden layers need more steps
        patch.setattr(hasher_module, "TWO_PART_STEPS", 50)
        assert len(Hasher(**{**quick, "batch_size": 30, "item_bits": 2}).fit(X, y).history_.losses) == 25
        patch.setattr(hasher_module, "LINEAR_STEPS", 60)
        assert len(Hasher(**{**quick, "batch_size": 30, "hidden": ()}).fit(X, y).history_.losses) == 30


def test_few_rows_without_labels_stay_near_itq() -> None:
    few, enough = np.random.default_rng(0).normal(size=(2, 60, 20)).astype(np.float32)
    enough = np.concatenate([few, enough])[:100]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hasher_module, "LINEAR_STEPS", 20)
        quick = {**QUICK, "epochs": None, "hidden": None}
        assert len(Hasher(**quick).fit(few).history_.losses) == 1
        assert len(Hasher(**quick).fit(enough).history_.losses) > 1  # five rows for each feature
        assert len(Hasher(**{**quick, "epochs": 3}).fit(few).history_.losses) == 3
        assert len(Hasher(**{**quick, "init": "random"}).fit(few).history_.losses) > 1
    same = Hasher(16, progress=False).fit(few).encode(few) == baselines.itq(few, 16).encode(few)
    assert same.mean() > 0.5


def test_settings_left_open_depend_on_the_target() -> None:
    X, y = blobs(60)
    quick = {**QUICK, "hidden": None, "epochs": 1}
    assert Hasher(**quick).fit(X, y).hidden_ == (512, 512)
    assert Hasher(**quick).fit(X, X).hidden_ == (512, 512)
    assert Hasher(**quick).fit(X).hidden_ == ()
    classes = {"temperature_y": 0.15, "temperature_z": 0.1, "kl": 0.1}
    several = {**classes, "temperature_y": 0.2}
    near = {"temperature_y": 0.05, "temperature_z": 0.03, "kl": 0.3, "neighbors": 16}
    for targets, given in ((y, classes), (multi_hot(y), several), (X, near), (None, near)):
        assert same_weights(Hasher(**QUICK).fit(X, targets), Hasher(**QUICK, **given).fit(X, targets))


# Validation


@pytest.mark.parametrize("kind", ["integers", "hierarchy", "multilabel", "embedding", "nothing"])
def test_validation_scores_choose_the_epoch(kind: str) -> None:
    X, _ = blobs()
    y, settings = targets_of(kind)
    rows = np.arange(240)
    train_rows, held_out = rows[:180], rows[180:]
    pair = (X[held_out], None if y is None else y[held_out])
    hasher = Hasher(**{**QUICK, "epochs": 7}, **settings)
    hasher.fit(X[train_rows], None if y is None else y[train_rows], validation=pair)
    scores = hasher.history_.scores
    assert len(scores) == 7
    assert all(0 <= score <= 1 for score in scores if score is not None)
    assert scores[hasher.best_epoch_ - 1] == max(score for score in scores if score is not None)


def test_validation_does_not_change_training() -> None:
    X, y = blobs()
    Xv, yv = blobs(30, seed=3)
    plain = Hasher(**QUICK).fit(X, y)
    scored = Hasher(**QUICK).fit(X, y, validation=(Xv, yv))
    assert plain.history_.losses == scored.history_.losses
    assert plain.best_epoch_ == 4
    assert plain.history_.scores == [None] * 4


def test_the_best_epoch_is_the_one_that_is_kept() -> None:
    """Validation labels that say the opposite of the training labels: the earliest epoch fits them best."""
    X, y = blobs()
    hasher = Hasher(**{**QUICK, "epochs": 5}).fit(X, y, validation=(X, np.random.default_rng(0).permutation(y)))
    scores = hasher.history_.scores
    best = int(np.argmax(scores)) + 1
    assert hasher.best_epoch_ == best
    codes = hasher.encode(X)
    score = fasthash.metrics.hierarchical_precision(
        codes,
        codes,
        np.random.default_rng(0).permutation(y),
        y,
        np.eye(6),
        at=240,
        bit_weights=hasher.bit_weights_,
    )
    assert score == pytest.approx(scores[best - 1], abs=1e-9)


def test_validation_classes_that_were_not_trained_on() -> None:
    X, y = blobs()
    known = y < 5
    hasher = Hasher(**QUICK, hierarchy=hierarchy()).fit(X[known], NAMES[y[known]], validation=(X, NAMES[y]))
    assert sorted(hasher.classes_) == sorted(NAMES[:5])
    assert hasher.history_.scores[-1] is not None


def test_large_validation_sets_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasthash.train.validation.QUERIES", 20)
    monkeypatch.setattr("fasthash.train.validation.DATABASE", 50)
    seen = []
    original = fasthash.metrics.hierarchical_precision

    def spy(query: Any, database: Any, *rest: Any, **named: Any) -> Any:
        seen.append((len(query), len(database), named["at"]))
        return original(query, database, *rest, **named)

    monkeypatch.setattr("fasthash.train.validation.hierarchical_precision", spy)
    X, y = blobs()
    Hasher(**QUICK).fit(X, y, validation=(X, y))
    assert set(seen) == {(20, 50, 50)}


# Arrays


def test_numpy_and_torch_give_their_own_kind() -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK).fit(X, y)
    again = Hasher(**QUICK).fit(torch.from_numpy(X), torch.from_numpy(y))
    assert same_weights(hasher, again)
    tensor = hasher.transform(torch.from_numpy(X))
    assert isinstance(tensor, torch.Tensor)
    assert not tensor.requires_grad
    np.testing.assert_array_equal(tensor.numpy(), hasher.transform(X))
    assert isinstance(hasher.encode(torch.from_numpy(X)), torch.Tensor)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8])
def test_other_number_types(dtype: type) -> None:
    X, y = blobs()
    rounded = (X * 8).astype(dtype)
    hasher = Hasher(**QUICK).fit(rounded, y)
    assert hasher.transform(rounded).dtype == np.float32
    assert same_weights(hasher, Hasher(**QUICK).fit(rounded.astype(np.float64), y))


def test_the_default_type_of_torch_does_not_matter() -> None:
    X, y = blobs()
    outputs, itq, lsh = (
        Hasher(**QUICK).fit(X, y).transform(X),
        baselines.itq(X, 8).encode(X),
        baselines.lsh(X, 8).encode(X),
    )
    torch.set_default_dtype(torch.float64)
    try:
        again = Hasher(**QUICK).fit(X, y).transform(X)
        np.testing.assert_array_equal(baselines.itq(X, 8).encode(X), itq)
        np.testing.assert_array_equal(baselines.lsh(X, 8).encode(X), lsh)
        assert fasthash.targets.class_distances(["a", "b"]).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert again.dtype == np.float32
    assert again.shape == outputs.shape


def test_read_only_arrays_and_memory_maps(tmp_path: Path) -> None:
    X, y = blobs()
    expected = Hasher(**QUICK).fit(X, y)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    frozen = X.copy()
    frozen.setflags(write=False)
    for given in (mapped, frozen, np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2]):
        hasher = Hasher(**QUICK).fit(given, y)
        assert same_weights(hasher, expected)
        np.testing.assert_array_equal(hasher.encode(given), expected.encode(X))


def test_no_rows_and_many_rows() -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK).fit(X, y)
    assert hasher.transform(X[:0]).shape == (0, 16)
    assert hasher.encode(X[:0]).shape == (0, 2)
    many = np.tile(X, (80, 1))  # more than one block
    np.testing.assert_array_equal(hasher.encode(many), np.tile(hasher.encode(X), (80, 1)))


# The same again


def test_same_seed_same_weights_whatever_the_global_generator() -> None:
    X, y = blobs()
    first = Hasher(**QUICK, preserve=0.5).fit(X, y)
    torch.manual_seed(123)
    np.random.default_rng(5)
    before = torch.get_rng_state()
    second = Hasher(**QUICK, preserve=0.5).fit(X, y)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(first, second)
    assert not same_weights(first, Hasher(**QUICK, preserve=0.5, seed=1).fit(X, y))


def test_fit_again_forgets() -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK).fit(X[:, :5], y)
    hasher.fit(X, y)
    assert same_weights(hasher, Hasher(**QUICK).fit(X, y))


# Scikit-learn's manners


def test_params() -> None:
    tree = hierarchy()
    hasher = Hasher(32, tree, kl=0.5)
    params = hasher.get_params()
    assert params["bits"] == 32
    assert params["hierarchy"] is tree
    assert params["kl"] == 0.5
    assert hasher.set_params(bits=8, kl=0.0) is hasher
    assert (hasher.bits, hasher.kl) == (8, 0.0)
    assert Hasher(**hasher.get_params(deep=False)).get_params() == hasher.get_params()
    with pytest.raises(ValueError, match=r"Hasher.set_params: 'widths' is not one of bits, hierarchy, "):
        hasher.set_params(bits=4, widths=3)
    assert hasher.bits == 8  # nothing was set


def test_init_does_not_look_at_settings() -> None:
    odd = Hasher(bits=-5, hierarchy="no", hidden="x")  # type: ignore[arg-type]
    assert odd.bits == -5
    assert not hasattr(odd, "module_")


def test_repr_shows_what_is_not_default() -> None:
    assert repr(Hasher()) == "Hasher()"
    assert repr(Hasher(32, kl=0.0)) == "Hasher(bits=32, kl=0.0)"


def test_scikit_learn_clone_and_pipeline() -> None:
    base = pytest.importorskip("sklearn.base")
    pipeline = pytest.importorskip("sklearn.pipeline")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    X, y = blobs()
    hasher = Hasher(**QUICK, hierarchy=hierarchy()).fit(X, NAMES[y])
    copy = base.clone(hasher)
    assert not hasattr(copy, "module_")
    assert copy.get_params().keys() == hasher.get_params().keys()
    assert same_weights(copy.fit(X, NAMES[y]), hasher)

    steps = pipeline.Pipeline([("scale", preprocessing.StandardScaler()), ("hash", Hasher(**QUICK))])
    z = steps.fit(X, y).transform(X)
    assert z.shape == (240, 16)
    np.testing.assert_array_equal(z, pipeline.make_pipeline(*(s for _, s in steps.steps)).fit_transform(X, y))
    steps.set_params(hash__bits=8)
    assert steps.fit(X, y).transform(X).shape == (240, 8)
    assert steps.get_params()["hash__kl"] == Hasher().kl


def test_pickle() -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK, hierarchy=hierarchy()).fit(X, NAMES[y])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(hasher)).transform(X), hasher.transform(X))


def test_on_another_device(device: torch.device) -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK, device=device).fit(X, y, validation=(X, y))
    assert next(hasher.module_.parameters()).device.type == device.type
    assert isinstance(hasher.transform(X), np.ndarray)
    assert hasher.encode(torch.from_numpy(X).to(device)).device.type == device.type


# The model file


@pytest.mark.parametrize("kind", ["integers", "hierarchy", "multilabel", "nothing"])
def test_save_and_load(kind: str, tmp_path: Path) -> None:
    X, _ = blobs()
    y, settings = targets_of(kind)
    hasher = Hasher(**{**QUICK, "bits": np.int64(20), "hidden": [24, 8]}, **settings, preserve=0.1)
    hasher.fit(X, y, validation=(X, y))
    path = tmp_path / "model.safetensors"
    hasher.save(path)
    loaded = Hasher.load(str(path))
    np.testing.assert_array_equal(loaded.transform(X), hasher.transform(X))
    np.testing.assert_array_equal(loaded.encode(X), hasher.encode(X))
    assert same_weights(loaded, hasher)
    assert loaded.history_ == hasher.history_
    assert loaded.best_epoch_ == hasher.best_epoch_
    assert loaded.n_features_in_ == FEATURES
    assert loaded.hidden_ == hasher.hidden_ == (24, 8)
    if hasher.classes_ is None:
        assert loaded.classes_ is None
    else:
        np.testing.assert_array_equal(loaded.classes_, hasher.classes_)
    kept = hasher.get_params()
    for name, value in loaded.get_params().items():
        if name == "hierarchy":
            assert (value is None) == (kept[name] is None)
            assert value is None or value.to_dict() == kept[name].to_dict()
        elif name not in ("device", "progress"):
            assert value == (tuple(kept[name]) if name == "hidden" else kept[name]), name
    assert same_weights(loaded.fit(X, y, validation=(X, y)), hasher)  # the settings are the whole recipe
    loaded.save(path)
    np.testing.assert_array_equal(Hasher.load(path).encode(X), hasher.encode(X))


def test_what_is_set_after_fit_does_not_spoil_the_file(tmp_path: Path) -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK).fit(X, y)
    codes = hasher.encode(X)
    hasher.set_params(bits=hasher.bits + 8, hierarchy=hierarchy(), kl=-1.0).save(tmp_path / "model")
    loaded = Hasher.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.encode(X), codes)
    assert loaded.hierarchy is None


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    X, y = blobs()
    path = tmp_path / "model.safetensors"
    hasher = Hasher(**QUICK, hierarchy=hierarchy()).fit(X, NAMES[y])
    hasher.save(path)
    tensors = safetensors.torch.load_file(path)
    assert tensors.keys() == weights(hasher).keys()
    with safetensors.safe_open(path, framework="np") as file:
        content = json.loads(file.metadata()["content"])
    assert content["settings"]["bits"] == 16
    assert sorted(content["classes"]) == sorted(NAMES)
    assert Hierarchy.from_dict(content["hierarchy"]).distance("cat", "dog") == 0.5


def saved(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor], dict[str, Any]]:
    X, y = blobs()
    path = tmp_path / "model.safetensors"
    Hasher(**{**QUICK, "epochs": 1}).fit(X, y).save(path)
    with safetensors.safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["content"])
    return path, safetensors.torch.load_file(path), content


def test_truncated_model(tmp_path: Path) -> None:
    path, _, _ = saved(tmp_path)
    data = path.read_bytes()
    for length in (0, 5, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"Hasher\.load: .*model\.safetensors is damaged or not a fasthash model"):
            Hasher.load(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"Hasher\.load: .*model\.safetensors does not exist"):
        Hasher.load(path)


def test_altered_model(tmp_path: Path) -> None:
    path, tensors, content = saved(tmp_path)
    some = next(name for name, value in tensors.items() if value.dim() == 2)

    def refused(tensors: dict[str, torch.Tensor], content: dict[str, Any], reason: str) -> None:
        metadata = {"format": "fasthash-hasher", "version": "1", "content": json.dumps(content)}
        safetensors.torch.save_file(tensors, path, metadata)
        with pytest.raises(ValueError, match=r"Hasher\.load: .* is damaged or not a fasthash model: " + reason):
            Hasher.load(path)

    refused({name: t for name, t in tensors.items() if name != some}, content, r"its tensors do not match .* \(" + some)
    refused({**tensors, some: tensors[some][:, :-1].contiguous()}, content, f"its tensor {some} is .* not ")
    refused(
        {**tensors, some: tensors[some].double()},
        content,
        f"its tensor {some} is .* float64, not .* float32",
    )
    refused({**tensors, "extra": torch.zeros(1)}, content, r"its tensors do not match .* \(extra\)")
    refused(tensors, {k: v for k, v in content.items() if k != "settings"}, "'settings'")
    refused(tensors, {**content, "settings": {**content["settings"], "colour": 1}}, ".*colour")
    refused(tensors, {**content, "settings": {**content["settings"], "bits": 10**9}}, ".*bits must be between 1 and")
    refused(tensors, {**content, "hidden": [10**12]}, "its tensor .* not ")
    refused(tensors, {**content, "hierarchy": {"edges": [["a", "a"]], "alone": []}}, ".*cycle")
    refused(tensors, {**content, "features": "many"}, ".*")


def test_queries_round_to_codes_and_are_not_saturated() -> None:
    X, y = blobs(80)
    for settings in ({}, {"loss": "csq"}):
        hasher = Hasher(**QUICK, **settings).fit(X, y)
        found = hasher.queries(X)
        assert found.dtype == np.float32
        assert np.array_equal(pack_bits(found), hasher.encode(X))
        assert np.allclose(np.abs(found - 0.5).max(1), 0.5)
        z = hasher.transform(X)
        u = np.log(z) - np.log1p(-z)  # of outputs that are not at the ends
        inside = (z > 0.001) & (z < 0.999)
        scale = (found - 0.5) / np.where(u == 0, 1, u)
        assert inside.sum() > len(X)
        for row, use in zip(scale, inside, strict=True):
            assert np.allclose(row[use], np.median(row[use]), rtol=1e-2) if use.any() else True
        assert isinstance(hasher.queries(torch.from_numpy(X)), torch.Tensor)
    with pytest.raises(ValueError, match=r"Hasher\.queries: X must have"):
        hasher.queries(X[:, 1:])
    with pytest.raises(RuntimeError, match=r"Hasher\.queries: call fit first"):
        Hasher(8).queries(X)
