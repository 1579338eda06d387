"""fasthash.train.encode: any module over any loader, into an array, a folder or a file, and on where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fasthash
from fasthash import HammingIndex
from fasthash.codes import pack_bits
from fasthash.train import Hasher, HashHead, encode, load_weights

encode_module = sys.modules["fasthash.train.encode"]
ROWS, WIDTH = 100, 6
X = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
KEYS = [f"picture {row}" for row in range(ROWS)]


def head(seed: int = 0, bits: int = 20) -> HashHead:
    torch.manual_seed(seed)
    module = HashHead(WIDTH, bits).train()
    for _ in range(30):
        module(X)
    return module.eval()


def codes_of(module: nn.Module) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return pack_bits(module(X)).numpy()  # type: ignore[no-any-return]


def batches(size: int = 7, keys: list[str] | None = KEYS, stop: int = ROWS) -> Iterator[Any]:
    for start in range(0, stop, size):
        end = min(start + size, stop)
        yield X[start:end] if keys is None else (X[start:end], keys[start:end])


def test_codes_of_every_kind_of_batch() -> None:
    module, wanted = head(), codes_of(head())
    dicts = [{"pixels": x, "key": keys, "labels": torch.zeros(len(x))} for x, keys in batches()]
    loaders = [
        list(batches()),
        list(batches(keys=None)),
        [x.numpy().astype(np.float64) for x in batches(keys=None)],
        dicts,
        DataLoader(TensorDataset(X, torch.arange(ROWS)), batch_size=9, num_workers=1),
    ]
    for loader in loaders:
        found = encode(module, loader, progress=False)
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, wanted)


def test_the_module_stays_as_it_was() -> None:
    module = nn.Sequential(head(), nn.Dropout())
    module.train()
    module[0].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    encode(module, [X], threshold=0)
    assert (module.training, module[0].training, module[1].training) == (True, False, True)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("keys", [KEYS, None])
def test_a_folder_is_an_index(tmp_path: Path, keys: list[str] | None) -> None:
    module = head()
    assert encode(module, batches(keys=keys), tmp_path / "index", progress=False) == ROWS
    with HammingIndex.open(tmp_path / "index") as index:
        assert (len(index), index.bits, index.keyed) == (ROWS, 20, keys is not None)
        found = index.get(range(ROWS)) if keys is None else index.get(keys=KEYS)
        np.testing.assert_array_equal(found, codes_of(module))


@pytest.mark.parametrize("keys", [KEYS, None])
@pytest.mark.parametrize("rows", [10, 1 << 16])
def test_it_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: list[str] | None, rows: int
) -> None:
    """What was encoded before Ctrl-C is kept, and only the rest is run through the module, in other batches."""
    monkeypatch.setattr(encode_module, "ROWS", rows)

    def interrupted() -> Iterator[Any]:
        yield from batches(keys=keys, stop=49)
        raise KeyboardInterrupt

    module = head()
    with pytest.raises(KeyboardInterrupt):
        encode(module, interrupted(), tmp_path / "index", progress=False)
    with HammingIndex.open(tmp_path / "index") as index:
        assert len(index) == 49
    seen = 0

    def count(_: nn.Module, x: tuple[Tensor, ...]) -> None:
        nonlocal seen
        seen += len(x[0])

    module.register_forward_pre_hook(count)
    for _ in range(2):
        assert encode(module, batches(11, keys=keys), tmp_path / "index", progress=False) == ROWS
    assert seen == (ROWS - 49) + 11 + 11  # of each call one batch is compared
    with HammingIndex.open(tmp_path / "index") as index:
        found = index.get(range(ROWS)) if keys is None else index.get(keys=KEYS)
    np.testing.assert_array_equal(found, codes_of(module))


@pytest.mark.parametrize("suffix", [".npy", ".u8bin", ".faiss", ".parquet", ".arrow"])
def test_files(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"codes{suffix}"
    module = head(bits=24)

    def fails() -> Iterator[Any]:
        yield from batches(stop=30)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        encode(module, fails(), out, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [f"codes{suffix}.partial"]
    assert encode(module, batches(), out, progress=False) == ROWS
    assert list(tmp_path.iterdir()) == [out]
    keyed = {"key_column": "key"} if suffix in (".parquet", ".arrow") else {}
    with HammingIndex.build(tmp_path / "index", out, progress=False, **keyed) as index:  # type: ignore[arg-type]
        np.testing.assert_array_equal(index.get(range(ROWS)), codes_of(module))
        if keyed:
            assert index.keys_of(range(ROWS)).tolist() == KEYS


def test_refusals(tmp_path: Path) -> None:
    module = head()
    nan = X.clone()
    nan[13, 2] = torch.nan
    for number, (loader, message) in enumerate(
        (
            ([], "encode: the loader must give at least one batch, got none"),
            ([(nan[:7], KEYS[:7]), (nan[7:], KEYS[7:])], "encode: the module gave NaN for 'picture 13'"),
            ([nan[:7], nan[7:]], "encode: the module gave NaN for row 13"),
            ([(X, KEYS[:5])], "encode: a batch must have a key for each of its 100 rows, got 5"),
        )
    ):
        for out in (None, tmp_path / f"{number}"):
            with pytest.raises(ValueError, match=message):
                encode(module, loader, out, progress=False)
    with pytest.raises(ValueError, match=r"encode: the module must give outputs \[B, bits\], got shape \(100,\)"):
        encode(nn.Flatten(0), [X[:, 0]])
    with pytest.raises(
        ValueError, match=r"encode: out must be a folder without a suffix, or end in one of .npy, .* got"
    ):
        encode(module, [X], "codes.txt")
    with pytest.raises(ValueError, match="encode: all batches of a loader must have keys, or none, got both"):
        encode(module, [(X[:5], KEYS[:5]), X[5:]], tmp_path / "b")
    encode(module, batches(), tmp_path / "c", progress=False)
    with pytest.raises(ValueError, match=r"encode: .*c has keys, and the loader has none: name another folder"):
        encode(module, batches(keys=None), tmp_path / "c", progress=False)
    with pytest.raises(ValueError, match=r"holds codes of another module or other inputs \(\d+ % of the bits differ\)"):
        encode(head(seed=1), batches(), tmp_path / "c", progress=False)
    with pytest.raises(ValueError, match=r"holds codes of 20 bits, and the module gives 12: name another folder"):
        encode(head(bits=12), batches(), tmp_path / "c", progress=False)
    with pytest.raises(ValueError, match="same"):
        encode(module, [(X[:2], ["same", "same"])], tmp_path / "d", progress=False)


def test_weights_of_a_run_go_into_a_module_of_the_callers(tmp_path: Path) -> None:
    module = HashHead(WIDTH, 8)
    fasthash.train(module, [X], lambda z: z.mean(), epochs=1, run_dir=tmp_path / "run", progress=False)
    for path in (tmp_path / "run", tmp_path / "run" / "model.safetensors"):
        other = load_weights(HashHead(WIDTH, 8), path)
        assert not other.training
        np.testing.assert_array_equal(encode(other, [X]), encode(module, [X]))
    named = "fasthash.train.encoder:HashHead"
    with pytest.raises(
        ValueError, match=rf"holds weights of a {named}, not of this torch.nn.*Linear: its tensors do not match"
    ):
        load_weights(nn.Linear(WIDTH, 8), tmp_path / "run")
    with pytest.raises(
        ValueError, match=rf"It holds the weights of {named}, from fasthash.train: make that module and"
    ):
        Hasher.load(tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"load_weights: the run in .*run is not finished: train to the end first"):
        load_weights(module, tmp_path / "run")
    with pytest.raises(FileNotFoundError):
        load_weights(module, tmp_path / "nothing")
