"""Pictures: which there are, reading of every kind, batches that leave the broken ones out by name, the command."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_cases import CLASSES, picture, picture_folder, seeded_net
from PIL import Image

import fasthash
from fasthash import HammingIndex
from fasthash.cli import main
from fasthash.codes import pack_bits
from fasthash.images import ImageError, ImageLoader, image_files, read_image
from fasthash.images import reading as reading_module

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures") / "photos")


def test_files_are_listed_and_not_opened(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "a.webp", "notes.txt", ".hidden/3.png", ".4.png", "a b/é.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert image_files(tmp_path) == ["a b/é.tif", "a.webp", "b/1.png", "b/2.JPG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"image_files: .*empty must hold pictures \(.jpeg, .jpg, .*\), got none"):
        image_files(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"image_files: .*nothing is not a folder"):
        image_files(tmp_path / "nothing")


def test_a_name_that_is_no_text_is_refused_before_all_else(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    except OSError:
        pytest.skip("the file system takes names of UTF-8 only")
    with pytest.raises(ValueError, match=r"names of pictures must be UTF-8, got 'caf\\udce9\.png': rename it"):
        image_files(tmp_path)


def test_the_middle_square(tmp_path: Path) -> None:
    values = np.zeros((20, 60, 3), np.uint8)
    values[:, 20:40] = 200
    for turned in (values, values.transpose(1, 0, 2)):
        Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "a.png")
        assert torch.equal(read_image(tmp_path / "a.png", 10), torch.full((3, 10, 10), 200, dtype=torch.uint8))
    Image.fromarray(values[:10, :10]).save(tmp_path / "small.png")  # smaller than the square
    assert read_image(tmp_path / "small.png", 32).shape == (3, 32, 32)


def saved(make: Callable[[], Image.Image], path: Path, **options: Any) -> Path:
    make().save(path, **options)
    return path


def test_kinds_of_pictures_become_rgb(tmp_path: Path) -> None:
    """Each file holds one colour; the oracle is that colour."""
    grey16 = np.full((12, 12), 100 * 257, np.uint16)
    clear = Image.new("RGBA", (12, 12), (0, 0, 0, 0))
    turned = Image.new("RGB", (12, 12), (10, 20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = Image.new("RGB", (12, 12), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    cases = {
        "grey.png": (Image.new("L", (12, 12), 100), (100, 100, 100), 0),
        "bits.png": (Image.new("1", (12, 12), 1), (255, 255, 255), 0),
        "grey16.png": (Image.fromarray(grey16), (100, 100, 100), 0),
        "grey16.tif": (Image.fromarray(grey16), (100, 100, 100), 0),
        "alpha.png": (Image.new("RGBA", (12, 12), (10, 20, 30, 255)), (10, 20, 30), 0),
        "clear.png": (clear, (255, 255, 255), 0),
        "palette.png": (palette, (10, 20, 30), 0),
        "one.gif": (palette, (10, 20, 30), 0),
        "cmyk.jpg": (Image.new("CMYK", (12, 12), (0, 255, 255, 0)), (255, 0, 0), 4),
        "cmyk.tif": (Image.new("CMYK", (12, 12), (0, 255, 255, 0)), (255, 0, 0), 0),
        "photo.jpg": (turned, (10, 20, 30), 4),
        "photo.webp": (turned, (10, 20, 30), 6),
    }
    for name, (image, colour, error) in cases.items():
        image.save(tmp_path / name, **({"exif": exif} if name == "photo.jpg" else {}))
        found = read_image(tmp_path / name, 8).int()
        assert found.shape == (3, 8, 8), name
        assert (found - torch.tensor(colour)[:, None, None]).abs().max() <= error, name


def test_rotation_that_a_camera_noted(tmp_path: Path) -> None:
    values = np.zeros((16, 16, 3), np.uint8)
    values[:8] = 250
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(values).save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = read_image(tmp_path / "a.jpg", 16).float()
    assert found[:, :7].mean() < 20
    assert found[:, 9:].mean() > 230


def wrong_files(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and what is said of each."""
    folder.mkdir(exist_ok=True)
    saved(lambda: picture("dots", 0, 200), folder / "whole.jpg")
    data = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("not a picture")
    frames = [picture("dots", number) for number in range(3)]
    frames[0].save(folder / "moves.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "moves.webp", save_all=True, append_images=frames[1:])
    Image.new("1", (12_000, 10_000)).save(folder / "huge.png")
    Image.new("F", (8, 8)).save(folder / "float.tif")
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(folder / "wide.tif")
    return {
        "cut.jpg": ": broken (OSError: image file is truncated",
        "empty.png": ": not a picture, or broken",
        "float.tif": ": holds floating-point values, must be of 8 or 16 bits",
        "huge.png": ": has 12000 x 10000 pixels, more than 100,000,000",
        "moves.gif": ": has 3 frames or pages, must be one picture",
        "moves.webp": ": has 3 frames or pages, must be one picture",
        "text.jpg": ": not a picture, or broken",
        "wide.tif": ": holds 32-bit values, must be of 8 or 16 bits",
    }


def test_pictures_that_cannot_be_used_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = wrong_files(tmp_path / "wrong")
    for name, reason in wrong.items():
        path = tmp_path / "wrong" / name
        with pytest.raises(ImageError) as error:
            read_image(path, 16)
        assert str(error.value).startswith(f"{path}{reason}")
        assert "\n" not in str(error.value)
    with pytest.raises(ImageError, match=r"nothing.png: there is no such file"):
        read_image(tmp_path / "nothing.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own limit speaks first
    with pytest.raises(ImageError, match=r"huge.png: has more than 100,000,000 pixels"):
        read_image(tmp_path / "wrong" / "huge.png")


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_leave_them_out(tmp_path: Path, workers: int) -> None:
    wrong = wrong_files(tmp_path)
    for number in range(5):
        picture("checks", number).save(tmp_path / f"good{number}.png")
    loader = ImageLoader(tmp_path, size=16, batch_size=4, workers=workers)
    assert len(loader.dataset) == 5 + len(wrong)
    for _ in range(2):  # passes do not add up
        given = list(loader)
        assert [key for _, keys in given for key in keys] == [f"good{number}.png" for number in range(5)]
        x = torch.cat([x for x, _ in given])
        assert (x.dtype, x.shape) == (torch.float32, (5, 3, 16, 16))
        assert torch.equal(x[2], read_image(tmp_path / "good2.png", 16) / 255)
        assert loader.skipped_count == len(wrong)
        assert [line.partition(":")[0] for line in loader.skipped] == list(wrong)


def test_no_file_is_opened_before_the_first_batch(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    read = reading_module.read_image

    def noted(path: str, size: int) -> Any:
        opened.append(path)
        return read(path, size)

    monkeypatch.setattr("fasthash.images.loader.read_image", noted)
    loader = ImageLoader(photos, size=16, batch_size=10)
    assert opened == []
    x, keys = next(iter(loader))
    assert len(opened) == 10
    assert keys[0] == "checks/000.png"
    assert len(x) == 10


def test_arguments(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for more, message in (
        ({"size": 0}, "ImageLoader: size must be between 1 and 4096, got 0"),
        ({"batch_size": 0}, "ImageLoader: batch_size must be at least 1, got 0"),
        ({"workers": -1}, "ImageLoader: workers must be at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageLoader(photos, **more)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="read_image: size must be between 1 and 4096, got 5000"):
        read_image(photos / "checks" / "000.png", 5000)
    import builtins

    known = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"images: pictures need Pillow: pip install 'fasthash\[images\]'"):
        ImageLoader(photos)


@pytest.fixture
def here(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run, whose module picture_cases:build makes, and with the pictures."""
    net = seeded_net()
    x, _ = next(iter(ImageLoader(photos, size=16)))
    fasthash.train(net, [x], lambda z: z.var(), epochs=1, run_dir=tmp_path / "run", progress=False)
    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "net.py").write_text((HERE / "picture_cases.py").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


ENCODE = ("encode", "run", "photos", "--module", "net:build", "--size", "16", "--batch-size", "8")


def test_the_command_makes_an_index_of_pictures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ENCODE, "--out", "index"]) == 0
    assert capsys.readouterr().out == "index: codes of 60 pictures\n"
    from fasthash.train import load_weights

    net = load_weights(seeded_net(), here / "run")
    with HammingIndex.open("index") as index:
        assert sorted(index.keys_of(index.ids)) == image_files("photos")
        picked = "stripes/003.png"
        with torch.no_grad():
            code = pack_bits(net(read_image(here / "photos" / picked, 16)[None] / 255)).numpy()
        np.testing.assert_array_equal(index.get(keys=[picked]), code)
        assert index.search(code, 1).distances[0, 0] == 0
    assert main([*ENCODE, "--out", "codes.parquet", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"out": "codes.parquet", "rows": 60, "skipped": 0, "skipped_files": []}


def test_the_command_goes_on_and_names_what_it_skips(
    here: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "photos").unlink()
    for kind in CLASSES[:2]:
        (here / "photos" / kind).mkdir(parents=True)
        for number in range(20):
            (here / "photos" / kind / f"{number:03}.png").symlink_to(photos / kind / f"{number:03}.png")
    assert main([*ENCODE, "--out", "index"]) == 0
    wrong_files(here / "photos" / "bad")
    for number in range(5):
        saved(lambda: picture("stripes", 0), here / "photos" / f"{number}.png")
        (here / "photos" / "bad" / f"x{number}.png").touch()
    read: list[str] = []
    known = reading_module.read_image
    monkeypatch.setattr("fasthash.images.loader.read_image", lambda path, size: read.append(path) or known(path, size))
    capsys.readouterr()
    assert main([*ENCODE, "--out", "index"]) == 0
    told = capsys.readouterr()
    assert told.out == "index: codes of 45 pictures\n"
    lines = told.err.splitlines()
    assert lines[0].startswith("fasthash: warning: skipped bad/cut.jpg: broken (OSError")
    assert lines[-1] == "fasthash: warning: skipped 3 more (--json names them)"
    assert len(lines) == 11
    assert len(read) == 5 + 13 + 8  # new ones, wrong ones, and a batch to compare


def test_rows_of_features_and_a_module_of_ones_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from torch import nn

    (here / "flat.py").write_text("from torch import nn\n\ndef signs():\n    return nn.Sequential(nn.Linear(12, 20))\n")
    X = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)
    np.save("x.npy", X)
    module = nn.Sequential(nn.Linear(12, 20))
    fasthash.train(module, [X], lambda z: z.var(), epochs=1, run_dir="flat", progress=False)
    command = ("encode", "flat", "x.npy", "--module", "flat:signs", "--threshold", "0")
    assert main([*command, "--out", "x_codes.npy"]) == 0
    with torch.no_grad():
        np.testing.assert_array_equal(np.load("x_codes.npy"), pack_bits(module(torch.from_numpy(X)), 0).numpy())
    assert main(["export", "flat", "--module", "flat:signs", "--shape", "12", "--out", "flat.pt2"]) == 0
    codes, outputs = torch.export.load("flat.pt2").module()(torch.from_numpy(X))
    torch.testing.assert_close(outputs, module(torch.from_numpy(X)))
    assert codes.shape == (50, 3)
    assert capsys.readouterr().out.endswith("flat.pt2: x float32 [N, 12] -> codes, outputs\n")


def test_refusals_of_the_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "odd.py").write_text("import nothing_of_that_name\n")
    (here / "wrong.py").write_text("def number():\n    return 3\n")
    for arguments, message in (
        (("encode", "run", "photos", "--out", "i"), "photos: a folder of pictures needs a model of pictures, or --mod"),
        (("encode", "run/model.safetensors", "x.npy", "--out", "x.npy"), "Hasher.load: run/model.safetensors is not a"),
        ((*ENCODE, "--out", "codes.npy"), "codes.npy: the suffix decides the format and must be one of .parquet"),
        ((*ENCODE, "--out", "nowhere/i"), "nowhere/i: cannot be written, there is no folder nowhere"),
        ((*ENCODE, "--out", "i", "--real"), "encode: --real needs embeddings and a model of them"),
        ((*ENCODE, "--out", "i", "--id-column", "id"), "encode: --id-column needs embeddings and a model of them"),
        ((*ENCODE, "--out", "i", "--scales", "s.npy"), "encode: --scales needs embeddings and a model of them"),
        ((*ENCODE, "--out", "i", "--size", "0"), "ImageLoader: size must be between 1 and 4096, got 0"),
        ((*ENCODE, "--out", "i", "--module", "net"), "--module: must be package:function, such as net:build"),
        ((*ENCODE, "--out", "i", "--module", "nowhere:f"), "--module: there is no module 'nowhere' here"),
        ((*ENCODE, "--out", "i", "--module", "odd:f"), "--module: there is no module 'nothing_of_that_name' here"),
        ((*ENCODE, "--out", "i", "--module", "net:f"), "--module: net has no function 'f'"),
        ((*ENCODE, "--out", "i", "--module", "wrong:number"), "--module: wrong:number must give a torch.nn.Module"),
        (
            ("export", "run", "--module", "net:build", "--out", "a.pt2"),
            "export: --module and --shape must be given together",
        ),
        (
            ("export", "run", "--module", "net:build", "--shape", "3,x", "--out", "a.pt2"),
            "--shape: must be sizes such as 3,224,224, got '3,x'",
        ),
    ):
        assert main([*arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert error.startswith(f"fasthash: error: {message}"), error
        assert error.count("\n") == 1
    assert not (here / "i").exists()


def test_nothing_is_imported_because_a_file_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The name of a module in a run is for people: one that is changed to a module on the path is not imported."""
    from fasthash._checkpoint import RUN, load_checkpoint, save_checkpoint

    (here / "evil.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    tensors, content = load_checkpoint(here / "run" / "model.safetensors", RUN)
    assert content == {"module": "picture_cases:Net"}
    save_checkpoint(here / "run" / "model.safetensors", tensors, {"module": "evil:build"}, RUN)
    assert main(["encode", "run/model.safetensors", "photos", "--out", "i"]) == 2
    np.save("x.npy", np.zeros((2, 3), np.float32))
    assert main(["encode", "run/model.safetensors", "x.npy", "--out", "x_codes.npy"]) == 2
    assert "It holds the weights of evil:build, from fasthash.train: make that module" in capsys.readouterr().err
    assert main([*ENCODE, "--out", "i"]) == 0
    assert not (here / "imported").exists()
