"""Two-part codes: bits of the class and bits of the order inside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hasher_cases import NAMES, QUICK, blobs, hierarchy, multi_hot
from test_train_run import same, stopped_after

from fasthash import pack_bits
from fasthash.evaluate import overlap_at
from fasthash.metrics import hierarchical_precision, mean_average_precision
from fasthash.train import Hasher
from fasthash.train.batches import shuffled_batches
from fasthash.train.class_batches import GROUP, ClassBatches

pytestmark = pytest.mark.usefixtures("one_thread")


def ordered(rows: int = 480, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Six classes far apart; inside each, rows differ along the same four directions, which say nothing of the class.

    X float32 [rows, 24], y [rows].
    """
    fixed, rng = np.random.default_rng(5), np.random.default_rng(seed)
    axes = np.linalg.qr(fixed.normal(size=(24, 24)))[0]
    y = np.arange(rows) % 6
    centres = 8 * axes[:6][y]
    return (centres + 2 * rng.normal(size=(rows, 4)) @ axes[6:10] + 0.1 * rng.normal(size=(rows, 24))).astype("f4"), y


# The parts


@pytest.mark.parametrize(
    ("bits", "item_bits", "weights"),
    [
        (64, None, [(44, 4), (20, 1)]),
        (128, None, [(88, 4), (40, 1)]),
        (63, None, None),
        (3, None, None),  # too few to divide
        (16, 0, None),
        (16, 15, [(1, 4), (15, 1)]),
        (16, np.int64(5), [(11, 4), (5, 1)]),
    ],
)
def test_a_quarter_of_the_bits_is_for_the_items_unless_said(
    bits: int, item_bits: int | None, weights: list[tuple[int, int]] | None
) -> None:
    X, y = blobs(60)
    hasher = Hasher(**{**QUICK, "bits": bits, "epochs": 1}, item_bits=item_bits).fit(X, y)
    assert hasher.bit_weights_ == weights
    assert hasher.transform(X).shape == (60, bits)


@pytest.mark.parametrize(
    "settings",
    [
        {"y": multi_hot(blobs(60)[1])},
        {"y": blobs(60)[0]},
        {"y": None},
        {"loss": "csq"},
        {"preserve": 0.1},
        {"init": "itq", "hidden": (), "bits": 8},
    ],
    ids=["multilabel", "embedding", "nothing", "loss", "preserve", "itq"],
)
def test_other_codes_are_not_divided(settings: dict[str, Any]) -> None:
    X, y = blobs(60)
    y = settings.pop("y", y)
    assert Hasher(**{**QUICK, "epochs": 1, **settings}).fit(X, y).bit_weights_ is None
    assert Hasher(**{**QUICK, "epochs": 1, **settings, "item_bits": 0}).fit(X, y).bit_weights_ is None


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"item_bits": 16}, ValueError, "item_bits must be below bits, 16, got 16"),
        ({"item_bits": 17}, ValueError, "item_bits must be below bits, 16, got 17"),
        ({"item_bits": -1}, ValueError, "item_bits must be between 0 and 4096, got -1"),
        ({"item_bits": 5000}, ValueError, "item_bits must be between 0 and 4096, got 5000"),
        ({"item_bits": 2.5}, TypeError, "item_bits must be an integer, got "),
        ({"y": multi_hot(blobs()[1])}, ValueError, "item_bits must be 0 with target 'multilabel', got 4"),
        ({"y": blobs()[0]}, ValueError, "item_bits must be 0 with target 'embedding', got 4"),
        ({"y": None}, ValueError, "item_bits must be 0 with target 'embedding', got 4"),
        ({"loss": "csq"}, ValueError, "item_bits must be 0 with a loss of its own, got 4"),
        ({"preserve": 0.1}, ValueError, "item_bits must be 0 with preserve, got 4"),
        ({"init": "itq", "hidden": ()}, ValueError, 'item_bits must be 0 with init "itq", got 4'),
    ],
)
def test_where_codes_cannot_be_divided(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    X, y = blobs()
    settings = {"item_bits": 4, **settings}
    y = settings.pop("y", y)
    with pytest.raises(error, match=f"Hasher.fit: {message}"):
        Hasher(**{**QUICK, **settings}).fit(X, y)


def test_the_order_inside_classes_is_kept() -> None:
    X, y = ordered()
    settings = {"bits": 32, "hidden": (48,), "epochs": 15, "batch_size": 96, "lr": 1e-2}
    overlap, precision = [], []
    for item_bits in (0, 8):
        hasher = Hasher(**settings, item_bits=item_bits).fit(X, y)
        codes, named = hasher.encode(X), {"exclude_self": True, "bit_weights": hasher.bit_weights_}
        overlap.append(overlap_at(codes, codes, X, X, y, y, 10, **named))
        precision.append(mean_average_precision(codes, codes, y, y, **named))
    assert overlap[1] > overlap[0] + 0.1  # chance is 0.13
    assert precision[1] > 0.95


def test_undivided_codes_do_not_depend_on_class_mates(monkeypatch: pytest.MonkeyPatch) -> None:
    """item_bits=0 is the network and the loss of a code that was never divided: those of three bits are the same."""
    X, y = blobs()
    settings = {**QUICK, "bits": 3}
    plain = Hasher(**settings).fit(X, y)
    monkeypatch.setattr("fasthash.train.fit_parts.ClassBatches", lambda *_, **__: pytest.fail("read class-mates"))
    assert same(Hasher(**settings, item_bits=0).fit(X, y), plain)
    names = Hasher(**QUICK, item_bits=0).fit(X, y).module_.state_dict()
    assert not any("part" in name for name in names)


# What is done with the weights


def test_scores_use_the_weights() -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK, hierarchy=hierarchy()).fit(X, NAMES[y], validation=(X, NAMES[y]))
    codes, weights = hasher.encode(X), hasher.bit_weights_
    expected = mean_average_precision(codes, codes, y, y, exclude_self=True, bit_weights=weights)
    assert hasher.score(X, NAMES[y]) == pytest.approx(expected)
    places = np.searchsorted(hasher.classes_, NAMES[y])
    similarity = hierarchy().similarity_matrix(hasher.classes_.tolist())
    found = hierarchical_precision(codes, codes, places, places, similarity, at=240, bit_weights=weights)
    assert hasher.history_.scores[hasher.best_epoch_ - 1] == pytest.approx(found)


def test_queries_are_those_of_both_parts() -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK).fit(X, y)
    found = hasher.queries(X)
    assert found.shape == (240, 16)
    np.testing.assert_array_equal(pack_bits(found), hasher.encode(X))


# Class-mates


def mates(X: torch.Tensor, y: torch.Tensor, seed: int = 0, size: int = 40, **more: Any) -> list[tuple[Any, ...]]:
    loader = shuffled_batches(X, y, batch_size=size, generator=torch.Generator().manual_seed(1))
    return [(x["mates"], groups) for x, _, _, groups in ClassBatches(loader, X, y, size=size, seed=seed, **more)]


def test_mates_share_a_class_and_all_come_equally_often() -> None:
    X, y = torch.arange(240.0)[:, None], torch.arange(240) % 6
    batches = mates(X, y)
    assert sum(len(rows) for rows, _ in batches) == 240
    assert torch.cat([rows for rows, _ in batches]).unique().numel() == 240
    for rows, groups in batches:
        for group in groups.unique():
            own = rows[groups == group].long().squeeze(1)
            assert len(own) <= GROUP
            assert len(y[own].unique()) == 1


def test_rows_of_classes_with_one_row_are_mates_of_each_other() -> None:
    X, y = torch.arange(40.0)[:, None], torch.cat([torch.zeros(20, dtype=torch.int64), torch.arange(1, 21)])
    for rows, groups in mates(X, y):
        for group in groups.unique():
            assert len((rows[groups == group] < 20).unique()) == 1
            assert (groups == group).sum() > 1
    X, y = blobs(40)
    own = np.arange(40)  # each row a class
    hasher = Hasher(**QUICK, item_bits=5).fit(X, own)
    assert hasher.bit_weights_ == [(11, 4), (5, 1)]
    assert np.isfinite(hasher.history_.losses).all()


def test_how_classes_are_numbered_changes_nothing() -> None:
    X, y = torch.from_numpy(blobs()[0]), torch.from_numpy(blobs()[1])
    other = torch.tensor([3, 5, 0, 1, 4, 2])[y]
    for (a, i), (b, j) in zip(mates(X, y), mates(X, other), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(i, j)
    settings = {
        **QUICK,
        "item_bits": 5,
        "supervision": "similarity",
    }  # a classifier has a row of weights for each number
    assert same(Hasher(**settings).fit(X, y), Hasher(**settings).fit(X, other))


def test_ranks_share_the_mates_of_one_process() -> None:
    X, y = torch.from_numpy(blobs()[0]), torch.from_numpy(blobs()[1])
    whole, parts = mates(X, y), [mates(X, y, rank=rank, world=3) for rank in range(3)]
    for (rows, groups), *found in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([rows for rows, _ in found]), rows)
        assert torch.equal(torch.cat([groups for _, groups in found]), groups)


# Files and folders


def test_save_and_load(tmp_path: Path) -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK, item_bits=6, hierarchy=hierarchy()).fit(X, NAMES[y])
    hasher.save(tmp_path / "model")
    loaded = Hasher.load(tmp_path / "model")
    assert loaded.bit_weights_ == hasher.bit_weights_ == [(10, 4), (6, 1)]
    np.testing.assert_array_equal(loaded.transform(X), hasher.transform(X))
    np.testing.assert_array_equal(loaded.queries(X), hasher.queries(X))
    assert loaded.score(X, NAMES[y]) == hasher.score(X, NAMES[y])
    loaded.set_params(item_bits=0).save(tmp_path / "again")  # the file has what was fitted
    np.testing.assert_array_equal(Hasher.load(tmp_path / "again").encode(X), hasher.encode(X))
    assert same(loaded.set_params(item_bits=6).fit(X, NAMES[y]), hasher)


def rewrite(path: Path, change: Any) -> None:
    """The model file with its JSON content as `change` leaves it."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    content = json.loads(metadata["content"])
    change(content)
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, {**metadata, "content": json.dumps(content)})


def test_a_file_of_an_older_version_is_undivided(tmp_path: Path) -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK, item_bits=0, init="random").fit(X, y)
    hasher.save(tmp_path / "model")

    def older(content: dict[str, Any]) -> None:
        del content["bit_weights"], content["pseudo_classes"]
        del content["settings"]["item_bits"], content["settings"]["head_scale"]

    rewrite(tmp_path / "model", older)
    loaded = Hasher.load(tmp_path / "model")
    assert loaded.bit_weights_ is None
    assert loaded.pseudo_classes_ is None
    np.testing.assert_array_equal(loaded.transform(X), hasher.transform(X))
    loaded.save(tmp_path / "model")
    assert Hasher.load(tmp_path / "model").bit_weights_ is None


@pytest.mark.parametrize(
    "groups",
    [[[12, 4], [4, 0]], [[11, 4], [5, 1]], [[12, 4], [5, 1]], [[8, 4], [4, 2], [4, 1]], [[16, 4]], "4", 4, None],
)
def test_a_file_with_other_parts_than_its_tensors(groups: Any, tmp_path: Path) -> None:
    X, y = blobs(60)
    Hasher(**{**QUICK, "epochs": 1}, item_bits=4).fit(X, y).save(tmp_path / "model")
    rewrite(tmp_path / "model", lambda content: content.update(bit_weights=groups))
    with pytest.raises(ValueError, match=r"Hasher\.load: .*model is damaged or not a fasthash model"):
        Hasher.load(tmp_path / "model")


def test_a_file_keeps_the_weights_it_was_trained_with(tmp_path: Path) -> None:
    X, y = blobs(60)
    Hasher(**{**QUICK, "epochs": 1}, item_bits=4).fit(X, y).save(tmp_path / "model")
    rewrite(tmp_path / "model", lambda content: content.update(bit_weights=[[12, 3], [4, 1]]))
    loaded = Hasher.load(tmp_path / "model")
    assert loaded.bit_weights_ == [(12, 3), (4, 1)]
    loaded.save(tmp_path / "again")
    assert Hasher.load(tmp_path / "again").bit_weights_ == [(12, 3), (4, 1)]


@pytest.mark.parametrize("stop", [1, 4])
def test_an_interrupted_run_goes_on_to_the_same_bits(stop: int, tmp_path: Path) -> None:
    X, y = blobs()
    settings, validation = {**QUICK, "epochs": 6, "item_bits": 5, "dropout": 0.3, "ema": 0.9}, blobs(60, 3)
    wanted = Hasher(**settings).fit(X, y, validation=validation)
    hasher = Hasher(**settings, run_dir=tmp_path / "run")
    with stopped_after(stop):
        hasher.fit(X, y, validation=validation)
    hasher.fit(X, y, validation=validation)
    assert same(hasher, wanted)
    assert hasher.history_ == wanted.history_
    assert Hasher.load(tmp_path / "run" / "model.safetensors").bit_weights_ == [(11, 4), (5, 1)]


def test_another_number_of_item_bits_is_another_run(tmp_path: Path) -> None:
    X, y = blobs()
    Hasher(**QUICK, item_bits=4, run_dir=tmp_path).fit(X, y)
    with pytest.raises(ValueError, match=r"holds a run with hasher\.item_bits 4, got 5"):
        Hasher(**QUICK, item_bits=5, run_dir=tmp_path).fit(X, y)
