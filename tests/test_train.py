"""The training loop, the objective, the networks and the checkpoint file."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fasthash import kl_loss, listwise_loss, similarity_loss
from fasthash._checkpoint import FORMAT, load_checkpoint, save_checkpoint
from fasthash.targets import embedding_distances, label_distances, multilabel_distances
from fasthash.train import Hasher, HashHead, History, Objective, encoder, train
from fasthash.train.batches import shuffled_batches
from fasthash.train.encoder import Standardize
from fasthash.train.features import feature_scales
from fasthash.train.settings import completed
from fasthash.train.validation import outputs

pytestmark = pytest.mark.usefixtures("one_thread")


def blobs(rows: int = 128, classes: int = 4, features: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % classes
    centres = 3 * torch.randn(classes, features, generator=torch.Generator().manual_seed(99))
    return centres[y] + torch.randn(rows, features, generator=generator), y


# Networks


def test_head_can_saturate_from_the_start() -> None:
    torch.manual_seed(0)
    x = torch.randn(512, 16)
    z, flat = HashHead(16, 32)(x), HashHead(16, 32, scale=1.0)(x)
    assert z.shape == (512, 32)
    assert (z - z.round()).abs().mean() < 0.14 < 0.28 < (flat - flat.round()).abs().mean()
    assert ((z > 0.5).float().mean(0) - 0.5).abs().max() < 0.1  # balanced bits


def test_head_scale_is_learnable() -> None:
    head = HashHead(4, 8)
    assert head.norm.weight.requires_grad
    torch.testing.assert_close(head.norm.weight, torch.full((8,), 4.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8, 4.0), "HashHead: features must be at least 1, got 0"),
        ((8, 0, 4.0), "HashHead: bits must be at least 1, got 0"),
        ((8, 8, 0.0), "HashHead: scale must be > 0 and finite, got 0.0"),
    ],
)
def test_head_errors(arguments: tuple[int, int, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HashHead(arguments[0], arguments[1], scale=arguments[2])


def test_a_batch_of_one_row_cannot_be_normalised() -> None:
    head = HashHead(4, 8)
    with pytest.raises(ValueError, match=r"HashHead: a batch must have at least 2 rows in training, got 1 \(drop_last"):
        head(torch.randn(1, 4))
    assert head.eval()(torch.randn(1, 4)).shape == (1, 8)


def test_encoder_sizes_and_errors() -> None:
    assert [m.out_features for m in encoder(5, 7, hidden=(3, 4)).modules() if isinstance(m, nn.Linear)] == [3, 4, 7]
    assert [m.out_features for m in encoder(5, 7, hidden=()).modules() if isinstance(m, nn.Linear)] == [7]
    with pytest.raises(ValueError, match="encoder: features and each width of hidden must be at least 1, got 0"):
        encoder(5, 7, hidden=(0,))
    with pytest.raises(ValueError, match="encoder: dropout must be >= 0 and < 1, got 1"):
        encoder(5, 7, dropout=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int8])
def test_feature_scales_are_those_of_numpy(dtype: torch.dtype) -> None:
    X = (torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0)) * 20 + 5).to(dtype)
    mean, deviation = feature_scales(X)
    wide = X.double().numpy()
    np.testing.assert_allclose(mean.numpy(), wide.mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation, np.sqrt(((wide - wide.mean(0)) ** 2).mean()), rtol=1e-5)
    standard = Standardize(3, mean, deviation)(X)
    assert standard.dtype == torch.float32
    assert abs(float(standard.std(correction=0)) - 1) < 1e-3


def test_feature_scale_of_constant_features_is_one() -> None:
    mean, deviation = feature_scales(torch.full((4, 2), 7.0))
    assert mean.tolist() == [7.0, 7.0]
    assert deviation == 1


# Objective


def test_objective_is_the_weighted_sum_of_the_losses() -> None:
    torch.manual_seed(0)
    z, y, x = torch.rand(24, 16), torch.arange(24) % 3, torch.randn(24, 5)
    matrix = torch.tensor([[0.0, 0.5, 1.0], [0.5, 0.0, 1.0], [1.0, 1.0, 0.0]])
    target = torch.rand(24, 16)
    settings = {"classes": 3, "distance": matrix, "kl_k": 2, "temperature_y": 0.3, "temperature_z": 0.15}
    weights = {"classification": 0.5, "similarity_weight": 2.0, "kl": 0.0, "preserve": 3.0}
    objective = Objective(16, **weights, temperature_x=0.07, temperature_xz=0.15, **settings)
    signs = 2 * z - 1
    expected = {
        "classification": nn.functional.cross_entropy(objective.classifier(signs), y),
        "similarity": listwise_loss(z, label_distances(y, matrix), temperature_y=0.3, temperature_z=0.15),
        "preserve": listwise_loss(z, embedding_distances(x), temperature_y=0.07, temperature_z=0.15),
    }
    terms = objective.terms(z, y, x)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    total = 0.5 * expected["classification"] + 2 * expected["similarity"] + 3 * expected["preserve"]
    torch.testing.assert_close(objective(z, y, x), total)

    torch.manual_seed(5)
    found = Objective(16, classification=0, similarity_weight=0, kl=0.25, kl_k=2)(z)
    torch.manual_seed(5)
    torch.testing.assert_close(found, 0.25 * kl_loss(z, k=2))
    assert found != 0.25 * kl_loss(z, target, k=2)


def test_soft_labels_are_a_softmax_of_class_distances() -> None:
    torch.manual_seed(0)
    z, y = torch.rand(12, 16), torch.arange(12) % 3
    matrix = torch.tensor([[0.0, 0.2, 1.0], [0.2, 0.0, 0.6], [1.0, 0.6, 0.0]])
    objective = Objective(16, classes=3, distance=matrix, soft_labels=0.25)
    found = objective.terms(z, y)["classification"]
    log_p = objective.classifier(2 * z - 1).log_softmax(1)
    expected = torch.zeros(())
    for i, label in enumerate(y.tolist()):
        weights = [math.exp(-d / 0.25) for d in matrix[label].tolist()]
        expected = expected - sum(w / sum(weights) * log_p[i, c] for c, w in enumerate(weights)) / 12
    torch.testing.assert_close(found, expected)
    objective.soft_labels = 1e-3  # all weight on the class itself
    plain = nn.functional.cross_entropy(objective.classifier(2 * z - 1), y)
    torch.testing.assert_close(objective.terms(z, y)["classification"], plain)
    assert not torch.isclose(found, plain)


def test_objective_stress_and_multilabel() -> None:
    z, y = torch.rand(24, 16), (torch.rand(24, 5) > 0.6).to(torch.uint8)
    y[7] = 0
    objective = Objective(16, classes=5, multilabel=True, distance=multilabel_distances, similarity="stress", kl=0.0)
    terms = objective.terms(z, y)
    wanted = multilabel_distances(y)
    torch.testing.assert_close(
        terms["similarity"], similarity_loss(z, wanted)
    )  # first batch: the running scale is its own
    logits = objective.classifier(2 * z - 1)
    assert y.any(1).sum() < len(y)  # rows without labels do not count
    shares = [-row.log_softmax(0)[own.bool()].mean() for row, own in zip(logits, y, strict=True) if own.any()]
    torch.testing.assert_close(terms["classification"], torch.stack(shares).mean())
    classes = torch.arange(24) % 5  # one label for each row: as classes
    plain = nn.functional.cross_entropy(logits, classes)
    torch.testing.assert_close(objective.terms(z, torch.eye(5)[classes])["classification"], plain)
    z.requires_grad_()
    objective(z, torch.zeros_like(y)).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("off", ["classification", "similarity_weight", "kl", "preserve"])
def test_terms_of_weight_zero_are_left_out(off: str) -> None:
    weights = {"classification": 1.0, "similarity_weight": 1.0, "kl": 1.0, "preserve": 1.0, off: 0.0}
    objective = Objective(8, classes=2, distance=1 - torch.eye(2), **weights)
    terms = objective.terms(torch.rand(8, 8), torch.arange(8) % 2, torch.randn(8, 3))
    assert sorted(terms) == sorted({"classification", "similarity", "kl", "preserve"} - {off.removesuffix("_weight")})
    assert (objective.classifier is None) == (off == "classification")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl": -1.0}, "Objective: kl must be >= 0 and finite, got -1.0"),
        ({"preserve": math.nan}, "Objective: preserve must be >= 0 and finite, got nan"),
        ({"classification": math.inf}, "Objective: classification must be >= 0 and finite, got inf"),
        (
            {"classification": 0, "similarity_weight": 0, "kl": 0},
            "Objective: at least one weight must be above 0, got 0 for all",
        ),
        ({"similarity": "flat"}, "Objective: similarity must be 'listwise' or 'stress', got 'flat'"),
        ({"classes": 0}, "Objective: classification needs classes >= 1, got 0"),
        ({"distance": None}, "Objective: similarity needs a distance, got None"),
        ({"soft_labels": -1.0}, "Objective: soft_labels must be >= 0 and finite, got -1.0"),
        ({"soft_labels": math.nan}, "Objective: soft_labels must be >= 0 and finite, got nan"),
        (
            {"soft_labels": 0.1, "distance": None, "similarity_weight": 0.0},
            "Objective: soft_labels needs class distances, a matrix, got none",
        ),
        (
            {"soft_labels": 0.1, "distance": embedding_distances},
            "Objective: soft_labels needs class distances, a matrix, got a function",
        ),
        (
            {"soft_labels": 0.1, "multilabel": True},
            "Objective: soft_labels needs class distances, a matrix, got multilabel",
        ),
        (
            {"soft_labels": 0.1, "classes": 3},
            r"Objective: soft_labels needs distances of 3 classes, got shape \(2, 2\)",
        ),
    ],
)
def test_objective_errors(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(8, **{"classes": 2, "distance": torch.zeros(2, 2), **settings})


def test_objective_names_what_a_term_lacks() -> None:
    with pytest.raises(ValueError, match="Objective: a term that is on needs y, got None"):
        Objective(8, classes=2, distance=torch.zeros(2, 2))(torch.rand(4, 8))
    with pytest.raises(ValueError, match="Objective: a term that is on needs features, got None"):
        Objective(8, classification=0, similarity_weight=0, preserve=1.0)(torch.rand(4, 8))


# Loop


def small_objective() -> Objective:
    return Objective(8, classes=4, distance=1 - torch.eye(4))


def test_training_lowers_the_loss_of_any_module_and_loader() -> None:
    X, y = blobs()
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3, padding=1), nn.Flatten(), HashHead(24, 8))
    loader = DataLoader(TensorDataset(X, y), batch_size=32, shuffle=True)
    objective = small_objective()
    before = objective.classifier.weight.clone()
    history = train(backbone, loader, objective, epochs=8, lr=1e-2, progress=False)
    assert history.losses[-1] < 0.8 * history.losses[0]
    assert history.scores == [None] * 8
    assert history.best_epoch == 8
    assert not backbone.training
    assert not torch.equal(objective.classifier.weight, before)
    z = outputs(backbone, X, torch.device("cpu"))
    same = y[:, None] == y
    distances = torch.cdist(z.round(), z.round(), p=1)
    assert distances[same].mean() < 0.5 * distances[~same].mean()


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_batch_is_x_or_x_y_or_x_y_features(parts: int) -> None:
    seen = []

    def objective(z: Tensor, *rest: Tensor) -> Tensor:
        seen.append(len(rest))
        return z.mean()

    X, y = blobs(32)
    batch = (X, y, X)[:parts] if parts > 1 else X
    train(HashHead(6, 8), [batch, batch], objective, epochs=1, progress=False)
    assert seen == [parts - 1] * 2


def test_a_loader_without_a_length() -> None:
    class Stream(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield from zip(*blobs(96), strict=True)

    history = train(HashHead(6, 8), DataLoader(Stream(), batch_size=32), small_objective(), epochs=3, progress=False)
    assert len(history.losses) == 3


def test_the_best_epoch_is_kept() -> None:
    X, y = blobs()
    batches = list(zip(X.split(32), y.split(32), strict=True))
    states, modes, scores = [], [], iter([0.1, 0.9, 0.3, 0.9, math.nan])

    def score(module: nn.Module) -> float:
        states.append({name: value.clone() for name, value in module.state_dict().items()})
        modes.append((module.training, torch.is_grad_enabled()))
        return next(scores)

    head = HashHead(6, 8)
    history = train(head, batches, small_objective(), epochs=5, score=score, progress=False)
    assert history.best_epoch == 2
    assert history.scores[:4] == [0.1, 0.9, 0.3, 0.9]
    assert modes == [(False, False)] * 5
    for name, value in head.state_dict().items():
        torch.testing.assert_close(value, states[1][name], rtol=0, atol=0)
    assert not torch.equal(head.linear.weight, states[4]["linear.weight"])


def test_a_score_that_is_never_a_number_leaves_the_last_one() -> None:
    X, y = blobs(32)
    values = iter([math.nan, math.nan, 0.5, math.nan])
    history = train(HashHead(6, 8), [(X, y)], small_objective(), epochs=4, score=lambda _: next(values), progress=False)
    assert history.best_epoch == 3


def test_score_every() -> None:
    X, y = blobs(32)
    history = train(
        HashHead(6, 8), [(X, y)], small_objective(), epochs=5, score=lambda _: 1.0, score_every=2, progress=False
    )
    assert history.scores == [None, 1.0, None, 1.0, 1.0]
    assert history.best_epoch == 2


def test_learning_rate_goes_up_and_down() -> None:
    rates = []

    class Spy(torch.optim.AdamW):
        def step(self, closure=None):  # type: ignore[no-untyped-def]
            rates.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    X, y = blobs(32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Spy)
        train(HashHead(6, 8), [(X, y)] * 10, small_objective(), epochs=2, lr=1.0, warmup=0.2, progress=False)
    first = [rate[0] for rate in rates]
    assert len(first) == 20
    assert first[0] == pytest.approx(0.125)
    assert first[:4] == sorted(first[:4])
    assert max(first) == pytest.approx(1.0, abs=0.02)
    assert first[4:] == sorted(first[4:], reverse=True)
    assert first[-1] < 0.01


def test_weight_decay_is_for_matrices_only() -> None:
    head = HashHead(6, 8)
    before = {name: p.detach().clone() for name, p in head.named_parameters()}
    train(head, [torch.zeros(8, 6)], lambda z: 0 * z.sum(), epochs=1, lr=0.1, weight_decay=0.5, progress=False)
    assert head.linear.weight.abs().sum() < before["linear.weight"].abs().sum()
    torch.testing.assert_close(head.norm.weight, before["norm.weight"])


def test_frozen_parameters_stay() -> None:
    X, y = blobs(32)
    backbone = nn.Linear(6, 6).requires_grad_(False)
    before = backbone.weight.clone()
    train(nn.Sequential(backbone, HashHead(6, 8)), [(X, y)], small_objective(), epochs=2, progress=False)
    assert torch.equal(backbone.weight, before)


def test_progress_goes_to_stderr_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = blobs(32)
    for progress in (False, None):  # None: stderr is not a terminal here
        train(HashHead(6, 8), [(X, y)], small_objective(), epochs=1, progress=progress)
        assert capsys.readouterr() == ("", "")
    train(HashHead(6, 8), [(X, y)], small_objective(), epochs=1, score=lambda _: 0.25, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "score=0.2500" in err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "train: epochs must be at least 1, got 0"),
        ({"score_every": 0}, "train: score_every must be at least 1, got 0"),
        ({"lr": 0.0}, "train: lr must be > 0 and finite, got 0.0"),
        ({"weight_decay": -1.0}, "train: weight_decay must be >= 0 and finite, got -1.0"),
        ({"warmup": 1.5}, "train: warmup must be >= 0 and <= 1, got 1.5"),
    ],
)
def test_train_errors(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(HashHead(6, 8), [blobs(32)], small_objective(), progress=False, **settings)


def test_train_needs_batches_parameters_and_a_finite_loss() -> None:
    with pytest.raises(ValueError, match="train: the loader must give at least one batch, got none"):
        train(HashHead(6, 8), [], small_objective(), progress=False)
    with pytest.raises(ValueError, match="train: module must have parameters to train, got none"):
        train(nn.Sigmoid(), [torch.rand(4, 8)], lambda z: z.mean(), progress=False)
    with pytest.raises(FloatingPointError, match=r"train: the loss became nan in epoch 1; lr 0.002 may be too high"):
        train(HashHead(6, 8), [torch.rand(4, 6)], lambda z: z.mean() * math.nan, progress=False)


def test_history_is_empty_to_begin_with() -> None:
    assert History() == History([], [], 0)


def test_shuffled_batches_cover_every_row_and_repeat_by_seed() -> None:
    column = torch.arange(10)

    def epochs() -> list[list[int]]:
        loader = shuffled_batches(column, 2 * column, batch_size=5, generator=torch.Generator().manual_seed(3))
        result = []
        for _ in range(2):
            batches = list(loader)
            assert all(torch.equal(2 * a, b) for a, b in batches)
            result.append([int(v) for a, _ in batches for v in a])
        return result

    first, second = epochs()
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    torch.rand(1)
    assert epochs() == [first, second]


# Checkpoint


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "n": torch.tensor(3), "t": torch.randn(4, 3).T}
    content = {"classes": ["ä", 3, None], "x": 0.5}
    path = tmp_path / "m.safetensors"
    for _ in range(2):  # the second replaces the first
        save_checkpoint(path, tensors, content)
        found, read = load_checkpoint(str(path))
        assert read == content
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, {"a": torch.zeros(2)}, {"n": 1})
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(path, {"a": torch.ones(2)}, {"n": 2})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(path, {}, {"n": math.nan})


def test_every_truncation_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, {"a": torch.zeros(20)}, {"n": 1})
    data = path.read_bytes()
    for length in [*range(0, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"Hasher\.load: .*m\.safetensors is damaged or not a fasthash model"):
            load_checkpoint(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "is not a fasthash model: its format is None, not 'fasthash-hasher'"),
        ({"format": "pt"}, "is not a fasthash model: its format is 'pt'"),
        ({"format": FORMAT, "version": "2", "content": "{}"}, "has version 2, this fasthash reads version 1 only"),
        ({"format": FORMAT, "version": "1"}, "is damaged or not a fasthash model: 'content'"),
        ({"format": FORMAT, "version": "1", "content": "{"}, "is damaged or not a fasthash model: Expecting"),
        ({"format": FORMAT, "version": "1", "content": "[1]"}, "is damaged: its content is not a JSON object"),
    ],
)
def test_foreign_files(tmp_path: Path, metadata: dict[str, str] | None, message: str) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, path, metadata)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Hasher\.load: .* does not exist"):
        load_checkpoint(tmp_path / "none")
    with pytest.raises(ValueError, match="is a folder or not a regular file"):
        load_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError):
        save_checkpoint(tmp_path / "none" / "m.safetensors", {}, {})


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ValueError, match="is damaged or not a fasthash model"):
        load_checkpoint(path)


def test_objective_and_hasher_have_the_same_defaults() -> None:
    """For class labels and undivided codes, the form in which an own loop uses the objective."""
    hasher = completed(Hasher(item_bits=0).get_params(), "labels", supervised=True, features=8)
    defaults = {name: p.default for name, p in inspect.signature(Objective.__init__).parameters.items()}
    names = set(defaults) & set(vars(hasher)) - {"bits"}
    assert {"kl", "kl_k", "temperature_y", "temperature_z", "similarity_weight", "classification"} <= names
    assert {name: defaults[name] for name in names} == {name: getattr(hasher, name) for name in names}
