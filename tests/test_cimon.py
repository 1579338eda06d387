"""CIMON: mined pairs and loss against oracles, what it learns, files, degenerate input, messages."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fasthash import CIMON, Hasher, baselines, unpack_bits
from fasthash.metrics import mean_average_precision
from fasthash.train import NotFittedError, similarity_mining
from fasthash.train.loop import RunFolder
from fasthash.train.similarity_mining import MinedPairs, confidence, half_normals, mine
from fasthash.train.two_views import MinedSimilarityLoss, nt_xent

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK: dict[str, Any] = {
    "bits": 16,
    "hidden": (24,),
    "epochs": 4,
    "batch_size": 32,
    "clusters": 6,
    "similar": 0.15,
    "progress": False,
}


def rows(count: int = 120, seed: int = 0, classes: int = 6, features: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Classes that overlap somewhat."""
    centres = np.random.default_rng(99).normal(size=(classes, features))
    y = np.arange(count) % classes
    return (centres[y] + 0.7 * np.random.default_rng(seed).normal(size=(count, features))).astype(np.float32), y


def same(a: CIMON, b: CIMON) -> bool:
    others = b.module_.state_dict()
    return all(torch.equal(value, others[name]) for name, value in a.module_.state_dict().items())


class Flat(nn.Module):
    """A backbone for images [B, 1, 4, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x.float())
        return found


def backbone() -> Flat:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Flat()


def images() -> Tensor:
    return torch.from_numpy(rows(features=16)[0]).view(-1, 1, 4, 4)


def brighter(x: Tensor) -> Tensor:
    return x + 0.1 * torch.rand(len(x), 1, 1, 1)


# What is mined


@pytest.mark.parametrize("threshold", [0.05, 0.4, 0.9, 1.2])
def test_confidence_is_that_of_the_two_normal_distributions(threshold: float) -> None:
    mode, below, above = 0.8, 0.21, 0.13
    distances = torch.linspace(0, 2, 101)
    found = confidence(distances, threshold, mode, below, above)
    left, right = NormalDist(mode, below).cdf, NormalDist(mode, above).cdf
    for d, value in zip(distances.tolist(), found.tolist(), strict=True):
        if d <= threshold:
            wanted = (left(threshold) - left(d)) / (left(threshold) - left(0))
        else:
            wanted = (right(d) - right(threshold)) / (right(2) - right(threshold))
        assert value == pytest.approx(wanted, abs=1e-5)
    alike = distances <= threshold
    assert bool((found[alike].diff() <= 0).all() & (found[~alike].diff() >= 0).all())
    assert bool(((found >= 0) & (found <= 1)).all())


def test_half_normals_find_mode_and_deviations() -> None:
    generator = torch.Generator().manual_seed(0)
    off = torch.randn(400_000, generator=generator)
    mode, below, above = half_normals(0.9 + torch.where(off < 0, 0.2 * off, 0.1 * off).clamp(-0.9, 1.1))
    assert mode == pytest.approx(0.9, abs=0.03)
    assert below == pytest.approx(0.2, abs=0.02)
    assert above == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("clusters", [0, 6])
@pytest.mark.parametrize("confident", [True, False])
def test_pairs_of_some_rows_are_those_of_all(clusters: int, confident: bool) -> None:
    X, _ = rows(200)
    mined = mine(torch.from_numpy(X), similar=0.15, clusters=clusters, confident=confident)
    S, W = mined.of(torch.arange(200))
    distance = 1 - np.corrcoef(X @ np.eye(20)) * 0 - (lambda u: u @ u.T)(X / np.linalg.norm(X, axis=1, keepdims=True))
    near = np.abs(distance - mined.threshold) < 1e-5
    assert ((S.numpy() > 0) == (distance <= mined.threshold))[~near].all()
    off = ~np.eye(200, dtype=bool)
    assert (distance[off] <= mined.threshold).mean() == pytest.approx(0.15, abs=0.01)
    assert bool((S == S.T).all() & (W == W.T).all() & (S.diag() == 1).all() & (W.diag() == 1).all())
    if clusters:
        assert mined.clusters is not None
        together = mined.clusters[:, None] == mined.clusters
        agree = together == (S > 0)
        assert bool((W[~agree] == 0).all())
        assert confident or bool((W[agree] == 1).all())
    elif not confident:
        assert bool((W == 1).all())
    chosen = torch.tensor([3, 150, 7, 3])
    for part, whole in zip(mined.of(chosen), (S, W), strict=True):
        torch.testing.assert_close(part[:3, :3], whole[chosen[:3]][:, chosen[:3]], atol=1e-4, rtol=0)


def test_refinement_raises_the_precision_of_pairs() -> None:
    X, y = rows(600)
    same_class = torch.from_numpy(y[:, None] == y)
    for similar in (0.1, 0.2, 0.3):
        S, W = mine(torch.from_numpy(X), similar=similar, clusters=12).of(torch.arange(600))
        alike = (S > 0).fill_diagonal_(False)
        kept = alike & (W > 0)
        before, after = (float(same_class[each].float().mean()) for each in (alike, kept))
        assert kept.any()
        assert after > before, similar


def test_rows_beyond_those_that_are_clustered_join_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows(300)
    monkeypatch.setattr(similarity_mining, "CLUSTERED", 150)
    found = mine(torch.from_numpy(X), similar=0.1, clusters=6).clusters
    assert found is not None
    assert found.shape == (300,)
    agree = (found[:, None] == found).numpy() == (y[:, None] == y)
    assert agree.mean() > 0.8


# The loss


def loss_by_loops(z: Tensor, rows: Tensor, mined: list[MinedPairs], contrast: float, temperature: float) -> float:
    views, total = (2 * z.double() - 1).tolist(), 0.0
    count, bits = len(rows), z.shape[2]
    for pairs in mined:
        S, W = (each.tolist() for each in pairs.of(rows))
        for v in views:
            for i in range(count):
                for j in range(count):
                    h = sum(a * b for a, b in zip(v[i], v[j], strict=True)) / bits
                    total += W[i][j] * (h - S[i][j]) ** 2 / count**2
    if len(views) == 2:
        both = [*views[0], *views[1]]

        def cosine(a: list[float], b: list[float]) -> float:
            return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

        for i, row in enumerate(both):
            others = {j: cosine(row, other) / temperature for j, other in enumerate(both) if j != i}
            own = others[(i + count) % (2 * count)]
            total += contrast * (math.log(sum(map(math.exp, others.values()))) - own) / (2 * count)
    return total


@pytest.mark.parametrize("count", [1, 2])
def test_the_loss_is_that_of_the_formulas(count: int) -> None:
    X, _ = rows(40)
    mined = [mine(torch.from_numpy(X) + n, similar=0.2, clusters=4) for n in range(count)]
    chosen = torch.tensor([0, 39, 6, 12, 1])
    z = torch.rand(count, 5, 7, generator=torch.Generator().manual_seed(1))
    found = MinedSimilarityLoss(mined, contrast=0.4, temperature=0.7)(z, chosen)
    assert float(found) == pytest.approx(loss_by_loops(z, chosen, mined, 0.4, 0.7), rel=1e-5)
    double = z.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda each: MinedSimilarityLoss(mined)(each, chosen), double)


def test_nt_xent_is_least_where_views_agree_and_rows_differ() -> None:
    apart = torch.eye(4)
    agree = nt_xent(apart, apart, temperature=0.5)
    assert agree < nt_xent(apart, apart.roll(1, 0), temperature=0.5)
    assert agree < nt_xent(torch.ones(4, 4), torch.ones(4, 4), temperature=0.5)
    assert float(nt_xent(torch.ones(4, 4), torch.ones(4, 4), temperature=0.5)) == pytest.approx(math.log(7))


# What it learns


@pytest.mark.parametrize("second", [False, True])
def test_codes_find_rows_of_the_same_class(second: bool) -> None:
    (X, y), (Q, v) = rows(600), rows(120, 1)
    other = rows(600, 2)[0] if second else None  # of the same classes, row by row
    hasher = CIMON(**{**QUICK, "bits": 32, "hidden": (64,), "epochs": 15, "batch_size": 64}).fit(X, other)
    found = mean_average_precision(hasher.encode(Q), hasher.encode(X), v, y)
    lsh = baselines.lsh(X, 32)
    assert found > mean_average_precision(lsh.encode(Q), lsh.encode(X), v, y) + 0.1
    if second:
        assert found > 0.9


def test_outputs_and_codes() -> None:
    X, _ = rows()
    hasher = CIMON(**QUICK).fit(X)
    outputs, codes = hasher.transform(X), hasher.encode(X)
    assert (outputs.dtype, outputs.shape, codes.dtype, codes.shape) == (np.float32, (120, 16), np.uint8, (120, 2))
    np.testing.assert_array_equal(unpack_bits(codes, 16), outputs > 0.5)
    assert (hasher.n_features_in_, len(hasher.history_.losses), len(hasher.mined_)) == (20, 4, 2)
    np.testing.assert_array_equal(hasher.encode(X[7]), codes[7:8])
    assert hasher.encode(X[:0]).shape == (0, 2)
    tensors = hasher.encode(torch.from_numpy(X))
    assert isinstance(tensors, Tensor)
    np.testing.assert_array_equal(tensors, codes)


def test_a_backbone_and_its_views() -> None:
    X, module = images(), backbone()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    hasher = CIMON(**QUICK, backbone=module, views=brighter).fit(X)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())  # a copy is trained
    assert hasher.transform(X).shape == (120, 16)
    assert hasher.n_features_in_ is None
    again = CIMON(**QUICK, backbone=module, views=(brighter, brighter), features=lambda x: x.flatten(1)).fit(X)
    assert same(hasher, again)
    paired = CIMON(**QUICK, backbone=module).fit(X, X + 0.1)
    assert not same(hasher, paired)
    single = CIMON(**QUICK, backbone=module, views=(brighter,)).fit(X)
    assert len(single.mined_) == 1


def test_each_part_counts() -> None:
    X, _ = rows()
    whole = CIMON(**QUICK).fit(X)
    for change in ({"confidence": False}, {"clusters": 0}, {"contrast": 0.0}, {"temperature": 1.0}, {"noise": 0.1}):
        assert not same(CIMON(**{**QUICK, **change}).fit(X), whole), change


# Degenerate input


@pytest.mark.parametrize("kind", ["equal rows", "zero rows", "few rows", "one feature", "two groups", "all similar"])
def test_degenerate_input_gives_finite_losses_and_codes(kind: str) -> None:
    X, _ = rows(60)
    settings = dict(QUICK)
    if kind == "equal rows":
        X[:] = X[0]
    elif kind == "zero rows":
        X[3:] = 0
    elif kind == "few rows":
        X = X[:20]
    elif kind == "one feature":
        X = X[:, :1]
    elif kind == "two groups":
        X[:30], X[30:] = X[0], X[1]
    else:
        settings["similar"] = 0.999
    hasher = CIMON(**settings).fit(X)
    assert np.isfinite(hasher.history_.losses).all()
    assert np.isfinite(hasher.transform(X)).all()
    for mined in hasher.mined_:
        S, W = mined.of(torch.arange(len(X)))
        assert bool(torch.isfinite(W).all() & ((W >= 0) & (W <= 1)).all() & (S.abs() == 1).all())


def test_a_value_far_out_counts_as_the_mean() -> None:
    X, _ = rows(400)
    X[3, 2] = 1e30
    with pytest.warns(UserWarning, match=r"^CIMON.fit: X holds 1 value far outside the usual range"):
        hasher = CIMON(**QUICK).fit(X)
    assert np.isfinite(hasher.transform(X)).all()
    assert bool(torch.isfinite(hasher.mined_[0].directions).all())


# Files


@pytest.mark.parametrize("stop", [1, 3])
def test_going_on_gives_the_same_codes(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, _ = rows()
    wanted = CIMON(**QUICK).fit(X)
    interrupted = CIMON(**QUICK, run_dir=tmp_path / "run")
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
            interrupted.fit(X)
    before = torch.get_rng_state()
    interrupted.fit(X)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(interrupted, wanted)
    assert interrupted.history_ == wanted.history_
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", lambda *_: pytest.fail("trained a finished run"))
        assert same(CIMON(**QUICK, run_dir=tmp_path / "run").fit(X), wanted)
    assert same(CIMON.load(tmp_path / "run" / "model.safetensors"), wanted)
    with pytest.raises(ValueError, match=r"^train: run_dir .* holds a run with cimon.seed 0, got 1"):
        CIMON(**QUICK, run_dir=tmp_path / "run", seed=1).fit(X)
    with pytest.raises(ValueError, match=r"holds a run with data.X"):
        CIMON(**QUICK, run_dir=tmp_path / "run").fit(X * 2)
    with pytest.raises(ValueError, match=r"holds a run with functions.views"):
        CIMON(**QUICK, run_dir=tmp_path / "run", views=torch.neg).fit(X)


def test_seeds() -> None:
    X, _ = rows()
    first, again, other = (CIMON(**QUICK, seed=seed).fit(X) for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_save_and_load(unit: float, tmp_path: Path) -> None:
    X, _ = rows()
    X[:, 0] *= unit  # of another unit: each feature then has a deviation of its own
    hasher = CIMON(**QUICK, contrast=0.5).fit(X)
    hasher.set_params(bits=8)  # counts from the next fit
    hasher.save(tmp_path / "model.safetensors")
    loaded = CIMON.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.transform(X), hasher.transform(X))
    assert loaded.history_ == hasher.history_
    assert (loaded.bits, loaded.contrast, loaded.hidden) == (16, 0.5, (24,))
    loaded.save(tmp_path / "again.safetensors")
    assert same(CIMON.load(tmp_path / "again.safetensors"), hasher)


def test_save_and_load_with_a_backbone(tmp_path: Path) -> None:
    X, path = images(), tmp_path / "model.safetensors"
    hasher = CIMON(**QUICK, backbone=backbone(), views=brighter).fit(X)
    hasher.save(path)
    loaded = CIMON.load(path, backbone=Flat())
    np.testing.assert_array_equal(loaded.encode(X), hasher.encode(X))
    with pytest.raises(ValueError, match=r"^CIMON.load: .* holds a network with a backbone, got none$"):
        CIMON.load(path)
    with pytest.raises(ValueError, match=r"^CIMON.load: .* is damaged or not a fasthash CIMON model: its tensor"):
        CIMON.load(path, backbone=nn.Flatten())
    CIMON(**QUICK).fit(rows()[0]).save(path)
    with pytest.raises(ValueError, match=r"^CIMON.load: .* holds a network with no backbone, got one$"):
        CIMON.load(path, backbone=Flat())


def test_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    CIMON(**QUICK).fit(rows()[0]).save(path)
    with pytest.raises(ValueError, match=r"Hasher.load: .* its format is 'fasthash-cimon'"):
        Hasher.load(path)
    with pytest.raises(FileNotFoundError, match=r"CIMON.load: .* does not exist"):
        CIMON.load(tmp_path / "none")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"CIMON.load: .* is damaged or not a fasthash CIMON model"):
        CIMON.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"features": 19},
        {"features": 10**12},
        {"settings": {"bits": 17}},
        {"settings": {"hidden": [5]}},
        {"settings": {"unknown": 1}},
        {"losses": None},
    ],
    ids=str,
)
def test_damaged_content(change: dict[str, Any], tmp_path: Path) -> None:
    from fasthash._checkpoint import CIMON as KIND
    from fasthash._checkpoint import load_checkpoint, save_checkpoint

    path = tmp_path / "model.safetensors"
    CIMON(**QUICK).fit(rows()[0]).save(path)
    tensors, content = load_checkpoint(path, KIND)
    change = {**change, "settings": content["settings"] | change.get("settings", {})}
    save_checkpoint(path, tensors, content | change, KIND)
    with pytest.raises(ValueError, match=r"^CIMON.load: .* is damaged or not a fasthash CIMON model: "):
        CIMON.load(path)


# Messages


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 0}, "bits must be between 1 and 4096, got 0"),
        ({"noise": -1}, "noise must be >= 0 and finite, got -1"),
        ({"similar": 0}, "similar must be > 0 and < 1, got 0"),
        ({"similar": 1.0}, "similar must be > 0 and < 1, got 1.0"),
        ({"clusters": -1}, "clusters must be at least 0, got -1"),
        ({"contrast": math.nan}, "contrast must be >= 0 and finite, got nan"),
        ({"temperature": 0}, "temperature must be > 0 and finite, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"lr": 0}, "lr must be > 0 and finite, got 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^CIMON.fit: {message}$"):
        CIMON(**settings).fit(rows()[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": 3}, "backbone must be a module or None, got int"),
        ({"views": ()}, "views must be a function of a batch, or one or two of them, got "),
        ({"views": 3}, "views must be a function of a batch, or one or two of them, got 3"),
        ({"views": (brighter,) * 3}, "views must be a function of a batch, or one or two of them, got "),
        ({"features": 3}, "features must be a function of a batch or None, got int"),
        ({"confidence": "no"}, "confidence must be True or False, got 'no'"),
    ],
)
def test_settings_of_a_wrong_type(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^CIMON.fit: {message}"):
        CIMON(**settings).fit(rows()[0])


def test_bad_data() -> None:
    X, _ = rows()
    nan = X.copy()
    nan[3, 5] = np.nan
    for data, settings, message in (
        ((nan,), {}, "X must be finite in float32, got NaN or infinity in 1 of 120 rows"),
        ((X, nan), {}, "second must be finite in float32, got NaN or infinity in 1 of 120 rows"),
        ((X[:19],), {}, "X must have at least 20 rows, got 19"),
        ((X[0],), {}, r"X must have shape \[N, F\] with F >= 1, got \(20,\)"),
        ((X, X[:-1]), {}, r"second must have the shape of X, \[120, 20\], got \[119, 20\]"),
        ((X, X), {"views": (brighter,)}, "views must be two if second is given, got 1"),
        ((X,), {"features": lambda x: x[0]}, r"features must give \[120, F\] for 120 rows, got \[20\]"),
        ((X,), {"features": lambda x: x / 0}, "features must be finite, got NaN or infinity"),
        ((images(),), {"backbone": Flat()}, "views or second must be given where there is a backbone, got neither"),
        (
            (images(),),
            {"backbone": nn.Identity(), "views": brighter},
            r"backbone must give \[B, F\] for rows \[B, ...\], got \[2, 1, 4, 4\]",
        ),
    ):
        with pytest.raises(ValueError, match=f"^CIMON.fit: {message}"):
            CIMON(**QUICK, **settings).fit(*data)


def test_before_and_after_fit() -> None:
    X, _ = rows()
    for method, given in (("transform", (X,)), ("encode", (X,)), ("save", ("x",))):
        with pytest.raises(NotFittedError, match=rf"^CIMON.{method}: call fit first \(or CIMON.load\)$"):
            getattr(CIMON(), method)(*given)
    hasher = CIMON(**QUICK).fit(X)
    with pytest.raises(ValueError, match=r"^CIMON.encode: X must have 20 features, got 19$"):
        hasher.encode(X[:, 1:])
    X[3, 4] = np.inf
    with pytest.raises(ValueError, match=r"^CIMON.transform: X must be finite in float32, got NaN or infinity in 1 of"):
        hasher.transform(X)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    X, _ = rows()
    with pytest.raises(ImportError, match=r"^CIMON.fit: clusters need scikit-learn, which is not installed: pip"):
        CIMON(**QUICK).fit(X)
    assert CIMON(**{**QUICK, "clusters": 0}).fit(X).encode(X).shape == (120, 2)
