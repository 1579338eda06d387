"""ImageHasher and `fasthash train photos/`: data, backbones, weights, freezing, going on, starting from a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from picture_cases import CLASSES, picture_folder
from torch import Tensor, nn

import fasthash
from fasthash import HammingIndex, Hierarchy
from fasthash.cli import main
from fasthash.images import ImageHasher, image_files, labelled_images
from fasthash.images.backbones import Normalise, backbone
from fasthash.train import NotFittedError, encode
from fasthash.train.run_folder import RunFolder

QUICK: dict[str, Any] = {"bits": 16, "size": 16, "epochs": 2, "batch_size": 16, "progress": False}
EDGES = [("pattern", "checks"), ("pattern", "dots"), ("line", "stripes"), ("root", "pattern"), ("root", "line")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures") / "photos")


@pytest.fixture(scope="module")
def fitted(photos: Path) -> ImageHasher:
    return ImageHasher(**{**QUICK, "epochs": 5}).fit(photos)


class Tiny(nn.Module):
    """A network of the interface of torchvision's: features, then a classifier called fc."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.pool = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1)
        self.fc: nn.Module = nn.Linear(6, 1000)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.fc(self.pool(self.norm(self.conv(x)).relu()).flatten(1))
        return z


def stand_ins(monkeypatch: pytest.MonkeyPatch, *, vision: bool = True, timm: bool = True) -> None:
    """Modules with the interfaces of torchvision.models and timm."""

    def create_model(name: str, *, pretrained: bool, num_classes: int) -> nn.Module:
        assert (pretrained, num_classes) == (False, 0)
        net = Tiny()
        net.fc = nn.Identity()
        return net

    def get_model(name: str, *, weights: None) -> nn.Module:
        return nn.Conv2d(3, 3, 1) if name == "odd" else Tiny()

    models = SimpleNamespace(list_models=lambda: ["resnet18", "odd"], get_model=get_model)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models) if vision else None)
    monkeypatch.setitem(sys.modules, "torchvision.models", models if vision else None)
    other = SimpleNamespace(list_models=lambda: ["vit_tiny"], create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", other if timm else None)


def test_it_learns(photos: Path, fitted: ImageHasher) -> None:
    codes = fitted.encode(photos)
    labels = np.repeat(np.arange(3), 20)
    found = fasthash.metrics.mean_average_precision(codes, codes, labels, labels, exclude_self=True)
    assert found > 0.9
    assert fitted.classes_ == list(CLASSES)
    assert fitted.skipped_ == []


def test_data_of_every_kind(photos: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys = image_files(photos)
    classes = [key.partition("/")[0] for key in keys]
    folder = labelled_images(photos)
    assert folder.keys == keys
    assert folder.labels.tolist() == classes
    lines = [f"{photos / key},{name}" for key, name in zip(keys, classes, strict=True)]
    (tmp_path / "one.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    several = [sorted({name, "red" if name == "checks" else "cold"}) for name in classes]
    texts = [f"{photos / key}\t{';'.join(names)}" for key, names in zip(keys, several, strict=True)]
    (tmp_path / "several.tsv").write_text("\n".join(["file\tlabels", *texts]) + "\n")
    pq.write_table(pa.table({"image": [str(photos / key) for key in keys], "labels": several}), tmp_path / "s.parquet")
    one = labelled_images(tmp_path / "one.csv")
    assert one.labels.tolist() == classes
    for name in ("several.tsv", "s.parquet"):
        found = labelled_images(tmp_path / name)
        assert found.names == ["checks", "cold", "dots", "red", "stripes"]
        assert found.labels[0].tolist() == [1, 0, 0, 1, 0]
        assert found.keys == [str(photos / key) for key in keys]
    hasher = ImageHasher(**{**QUICK, "epochs": 1}).fit(tmp_path / "s.parquet", tmp_path / "several.tsv")
    assert hasher.classes_ == ["checks", "cold", "dots", "red", "stripes"]
    assert hasher.history_.scores[0] is not None
    direct = ImageHasher(**{**QUICK, "epochs": 1}).fit(photos)
    np.testing.assert_array_equal(
        ImageHasher(**{**QUICK, "epochs": 1}).fit(tmp_path / "one.csv").encode(photos), direct.encode(photos)
    )


def test_saved_and_loaded(photos: Path, fitted: ImageHasher, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.safetensors")
    loaded = ImageHasher.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.encode(photos), fitted.encode(photos))
    assert (loaded.bits, loaded.size, loaded.classes_) == (16, 16, list(CLASSES))
    loaded.export(tmp_path / "m.pt2")
    x = torch.rand(3, 3, 16, 16)
    codes, _ = torch.export.load(tmp_path / "m.pt2").module()(x)
    np.testing.assert_array_equal(codes.numpy(), encode(fitted.module_, [x]))
    with pytest.raises(NotFittedError, match=r"ImageHasher.save: call fit first"):
        ImageHasher().save(tmp_path / "n")
    with pytest.raises(ValueError, match=r"its format is 'fasthash-image-hasher'"):
        fasthash.Hasher.load(tmp_path / "m.safetensors")


def test_a_run_goes_on_to_the_same_weights(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order, crops and mirroring too: all that is random is in the checkpoint."""
    whole = ImageHasher(**QUICK).fit(photos)
    save = RunFolder.save

    def interrupt(self: RunFolder, *state: Any) -> None:
        save(self, *state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ImageHasher(**QUICK, run_dir=tmp_path / "run").fit(photos)
    again = ImageHasher(**QUICK, run_dir=tmp_path / "run").fit(photos)
    for name, value in whole.module_.state_dict().items():
        assert torch.equal(value, again.module_.state_dict()[name]), name
    with pytest.raises(
        ValueError, match=r"holds a run with train.epochs 2, got 3: .*; for more epochs begin a new run"
    ):
        ImageHasher(**{**QUICK, "epochs": 3}, run_dir=tmp_path / "run").fit(photos)
    more = ImageHasher(**{**QUICK, "lr": 1e-9}, start_from=tmp_path / "run").fit(photos)
    for name, value in more.module_.named_parameters():
        torch.testing.assert_close(value, dict(again.module_.named_parameters())[name], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"ImageHasher.fit: start_from .* is of another network"):
        ImageHasher(**{**QUICK, "bits": 8}, start_from=tmp_path / "run").fit(photos)


@pytest.mark.parametrize(("rate", "moves"), [(0, False), (1e-4, True)])
def test_rates_of_the_backbone(photos: Path, tmp_path: Path, rate: float, moves: bool) -> None:
    """0 freezes it, statistics of its norms too; the head learns in any case."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    hasher = ImageHasher(**QUICK, backbone=net, backbone_lr=rate, run_dir=tmp_path / "run").fit(photos)
    body, head = hasher.module_
    after = body.module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before) != moves
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())  # a copy was trained
    assert not torch.equal(head.norm.bias, torch.zeros(16))
    with pytest.raises(ValueError, match=r"has the backbone 'Sequential': if you trust it, pass backbone="):
        ImageHasher.load(tmp_path / "run" / "model.safetensors")
    loaded = ImageHasher.load(tmp_path / "run" / "model.safetensors", backbone=net)
    np.testing.assert_array_equal(loaded.encode(photos), hasher.encode(photos))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    if moves:
        assert [group["lr"] for group in config["optimizer"]["groups"]] == [1e-4, 1e-4, 2e-3, 2e-3, 2e-3]


def test_backbones_of_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_ins(monkeypatch)
    x = torch.rand(2, 3, 16, 16)
    for name in ("torchvision:resnet18", "resnet18", "timm:vit_tiny", "vit_tiny"):
        module, features = backbone(name, 16)
        assert features == 6
        assert isinstance(module[0], Normalise)
        assert module(x).shape == (2, 6)
    trained = Tiny()
    torch.save(trained.state_dict(), tmp_path / "w.pt")  # with its classifier
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "w2.pt")
    for file in ("w.pt", "w2.pt"):
        module, _ = backbone("resnet18", 16, tmp_path / file)
        assert torch.equal(module[1].conv.weight, trained.conv.weight)
    white = Normalise()(torch.ones(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(white, (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225]))


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def test_backbones_that_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    stand_ins(monkeypatch)
    torch.save(Evil(), "evil.pt")
    torch.save({"a": 3}, "numbers.pt")
    torch.save(nn.Linear(2, 2).state_dict(), "other.pt")
    cases: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        (("resnet19", 16), ValueError, "there is no backbone 'resnet19' in torchvision or timm"),
        (("hub:resnet18", 16), ValueError, "backbone must be small, torchvision:NAME or timm:NAME, got 'hub:resnet18'"),
        (("torchvision:odd", 16), ValueError, "cannot find the classifier of torchvision's odd"),
        ((3, 16), TypeError, "backbone must be a name or a torch.nn.Module, got int"),
        ((nn.Conv2d(3, 2, 1), 16), ValueError, r"backbone must give features \[B, F\], got shape \(2, 2, 16, 16\)"),
        (("small", 16, "nothing.pt"), FileNotFoundError, "nothing.pt: no such file"),
        (("small", 16, "evil.pt"), ValueError, r"evil.pt must be a state dict for torch.load\(weights_only=True\)"),
        (("small", 16, "numbers.pt"), ValueError, "numbers.pt must hold a state dict of tensors, got dict"),
        (
            ("resnet18", 16, "other.pt"),
            ValueError,
            r"other.pt holds weights of another network: bias is shape \[2\], not nothing",
        ),
    ]
    for arguments, kind, message in cases:
        with pytest.raises(kind, match=f"ImageHasher: {message}"):
            backbone(*arguments)
    assert not Path("executed").exists()
    stand_ins(monkeypatch, vision=False, timm=False)
    with pytest.raises(ImportError, match="backbone 'resnet18' needs torchvision or timm: pip install torchvision"):
        backbone("resnet18", 16)


def test_an_optimizer_of_ones_own(tmp_path: Path) -> None:
    """Groups keep their own rates in the schedule, the objective's weights join, SGD's state is in the checkpoint."""
    torch.manual_seed(0)
    batches = [(torch.randn(32, 4), torch.arange(32) % 2) for _ in range(4)]

    def run(epochs_done: int | None = None, **more: Any) -> nn.Module:
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), fasthash.train.HashHead(4, 8))
        objective = fasthash.train.Objective(8, classes=2, distance=1.0 - torch.eye(2))
        kept.append([p.detach().clone() for p in (net[0].weight, net[1].weight, objective.classifier.weight)])
        fasthash.train(net, batches, objective, epochs=3, optimizer=make, progress=False, **more)
        kept.append([p.detach().clone() for p in (net[0].weight, net[1].weight, objective.classifier.weight)])
        return net

    def make(net: nn.Module) -> torch.optim.Optimizer:
        groups = [{"params": net[2].parameters()}, {"params": net[1].parameters(), "lr": 1e-3}]  # type: ignore[index]
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    kept: list[list[Tensor]] = []
    whole = run()
    first, small, classifier = (after - before for before, after in zip(*kept, strict=True))
    assert not first.any()  # in no group
    assert small.any()
    assert classifier.any()
    assert torch.equal(whole.state_dict()["2.norm.bias"], run(run_dir=tmp_path / "run").state_dict()["2.norm.bias"])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["optimizer"] == {
        "kind": "SGD",
        "groups": [{"lr": 0.1, "parameters": 3}, {"lr": 0.001, "parameters": 2}, {"lr": 0.002, "parameters": 2}],
    }
    for bad, kind, message in (
        (
            lambda net: 3,
            TypeError,
            "optimizer must be a function that gives a torch.optim.Optimizer for the module, got",
        ),
        (lambda net: torch.optim.LBFGS(net.parameters()), ValueError, "must step by gradients alone, got LBFGS"),
    ):
        with pytest.raises(kind, match=message):
            fasthash.train(nn.Linear(4, 8), batches, lambda z, y: z.mean(), optimizer=bad, progress=False)


def test_lines_of_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasthash.train.progress_lines.SECONDS", 0.0)
    fasthash.train(nn.Linear(4, 8), [torch.randn(4, 4)] * 2, lambda z: z.var(), epochs=2, progress="lines")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"train: step {step} of 4" for step in (1, 2, 3, 4)]
    assert ", loss " in lines[-1]
    with pytest.raises(ValueError, match="train: progress must be 'lines', got 'dots'"):
        fasthash.train(nn.Linear(4, 8), [torch.randn(4, 4)], lambda z: z.var(), progress="dots")


def test_broken_pictures_do_not_end_a_run(photos: Path, tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "some", each=6)
    (folder / "dots" / "cut.png").write_bytes((photos / "dots" / "000.png").read_bytes()[:300])
    (folder / "dots" / "text.jpg").write_text("?")
    hasher = ImageHasher(**{**QUICK, "batch_size": 4}).fit(folder)
    assert sorted(line.partition(":")[0] for line in hasher.skipped_) == ["dots/cut.png", "dots/text.jpg"]


def test_refusals(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "a.png").touch()
    (tmp_path / "x.csv").write_text("name,label\na.png,1\n")
    for more, source, message in (
        ({"size": 4}, photos, "ImageHasher: size must be between 8 and 4096, got 4"),
        ({"batch_size": 1}, photos, "ImageHasher: batch_size must be at least 2, got 1"),
        ({"backbone_lr": -1}, photos, "ImageHasher: backbone_lr must be >= 0 and finite, got -1"),
        ({"hierarchy": Hierarchy.from_edges([("a", "b")])}, photos, "ImageHasher.fit: "),
        (
            {},
            tmp_path / "loose",
            "must have a folder for each class, got 1 pictures outside such a folder, for example a.png",
        ),
        ({}, tmp_path / "x.csv", "must have one column called path or file or .*, its columns are 'name', 'label'"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageHasher(**{**QUICK, **more}).fit(source)  # type: ignore[dict-item]
    with pytest.raises(FileNotFoundError, match=r"labelled_images: .*nothing: no such file or folder"):
        ImageHasher(**QUICK).fit(tmp_path / "nothing")


TRAIN = ("train", "photos", "--bits", "16", "--size", "16", "--epochs", "2", "--batch-size", "16")


def test_the_commands(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "h.tsv").write_text("\n".join("\t".join(edge) for edge in EDGES) + "\n")
    save = RunFolder.save

    def interrupt(self: RunFolder, *state: Any) -> None:
        save(self, *state)
        raise KeyboardInterrupt

    command = [*TRAIN, "--hierarchy", "h.tsv", "--run-dir", "run", "--val-features", "photos"]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", interrupt)
        assert main(command) == 130
    told = "fasthash: interrupted: run the same command again: it continues after the last complete epoch in run"
    assert capsys.readouterr().err.splitlines()[-1] == told
    assert main([*command, "--json"]) == 0
    told_json = json.loads(capsys.readouterr().out)
    assert (told_json["model"], told_json["epochs"]) == ("run/model.safetensors", 2)
    assert told_json["classes"] == list(CLASSES)
    assert main(["encode", "run/model.safetensors", "photos", "--out", "index"]) == 0
    assert main(["export", "run/model.safetensors", "--out", "m.pt2"]) == 0
    assert capsys.readouterr().out.endswith("m.pt2: x float32 [N, 3, 16, 16] -> codes, outputs\n")
    with HammingIndex.open("index") as index:
        assert len(index) == 60
        codes = ImageHasher.load("run/model.safetensors").encode("photos", keys=["dots/001.png"])
        np.testing.assert_array_equal(index.get(keys=["dots/001.png"]), codes)
    assert main([*TRAIN, "--start-from", "run", "--out", "more.safetensors"]) == 0
    assert capsys.readouterr().err.startswith("train: step ")  # a line where stderr is no terminal
    for arguments, message in (
        ((*TRAIN,), "train: the following arguments are required: --out or --run-dir"),
        ((*TRAIN, "--out", "m", "--labels", "x"), "train: --labels needs embeddings, got pictures"),
        (
            (*TRAIN, "--out", "m", "--backbone", "resnet18"),
            "ImageHasher: backbone 'resnet18' needs torchvision or timm",
        ),
        (("train", "x.npy", "--out", "m", "--size", "3"), "train: --size needs pictures"),
        (
            ("encode", "run/model.safetensors", "photos", "--size", "3", "--out", "i"),
            "encode: --size needs --module",
        ),
        (("encode", "run/model.safetensors", "photos", "--out", "x.npy"), "x.npy: the suffix decides the format"),
    ):
        with monkeypatch.context() as patch:
            stand_ins(patch, vision=False, timm=False)
            assert main([*arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"fasthash: error: {message}"), error
