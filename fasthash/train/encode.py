"""Codes of all that a loader gives, by any module: streamed into an array, an index folder, or a file."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from fasthash._arguments import number, one_device
from fasthash.codes import pack_bits
from fasthash.index import HammingIndex
from fasthash.train.unpacking import TARGETS, unpacked

ROWS, SECONDS = 1 << 16, 20.0  # codes are written to disk after this number of rows, or after this time
FILES = (".npy", ".u8bin", ".faiss", ".parquet", ".arrow", ".feather")
KEYS = ("key", "keys")  # names of the entry of a batch that holds the keys
SAME = 0.98  # part of the bits in which codes of one module agree, whatever machine and batch size made them


def encode(
    module: nn.Module,
    loader: Iterable[Any],
    out: str | PathLike[str] | None = None,
    *,
    threshold: float = 0.5,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> NDArray[np.uint8] | int:
    """Packed codes uint8 [N, ceil(bits / 8)] of all that a loader gives, N in the loader's order.

    Args:
        module: x [B, ...] -> outputs [B, bits]; it is run in evaluation mode and without gradients.
        loader: a DataLoader (whose workers read ahead), or any iterable of batches. A batch is x, or a sequence whose
            first part is x, or a dict, as `fasthash.train.train` takes it. A part that is a list or tuple of texts (in
            a dict the entry "key" or "keys") holds the keys of the rows, such as file names; targets are not used.
        out: None: the codes are given back. A name without a suffix: the folder of a `HammingIndex`, with the keys
            where the loader gives them. A name that ends in .npy, .u8bin, .faiss, .parquet, .arrow or .feather: that
            file (the last three keep keys).
        threshold: of the bits, see `pack_bits`.
        device: where the module runs, and is moved to; None: where it is.
        progress: show a bar on stderr; None: if stderr is a terminal.

    Memory is bounded by 65,536 codes and one batch, but for out=None. With `out` the work is durable every 20 seconds,
    and the same call continues an interrupted one: rows whose keys are there are not encoded again;
    without keys, as many rows are skipped as there are. A file is written when all is done; until then codes lie in the
    folder <out>.partial. Before it goes on, one batch is encoded again and compared.

    Returns:
        The codes where out is None, else the number of rows that `out` holds.

    Raises:
        ValueError: outputs that are not [B, bits] or hold NaN (naming the key or row), keys that are repeated in a part
            of the loader that is not yet durable or that only some batches have, an `out` that holds codes of another
            module or of other bits, another suffix.
        OSError: `out` cannot be written.

    >>> from fasthash.train import HashHead
    >>> batches = [(torch.randn(3, 4), ["a", "b", "c"]), (torch.randn(2, 4), ["d", "e"])]
    >>> encode(HashHead(4, 16), batches, progress=False).shape
    (5, 2)
    """
    threshold = number(threshold, "encode", "threshold")
    if device is None:
        place = next((p.device for p in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    else:
        place = one_device(device, "encode")
        module = module.to(place)
    target = None if out is None else Path(out)
    if target is not None and target.suffix and target.suffix.lower() not in FILES:
        raise ValueError(
            f"encode: out must be a folder without a suffix, or end in one of {', '.join(FILES)}, got {str(out)!r}"
        )
    with _evaluating(module), torch.no_grad(), _bar(loader, progress) as bar:
        encoder = _Encoder(module, place, threshold)
        if target is None:
            blocks = []
            for batch in _batches(loader, encoder):
                blocks.append(encoder.codes(batch, slice(None)))
                bar.update(len(batch))
            if not blocks:
                raise ValueError("encode: the loader must give at least one batch, got none")
            return np.concatenate(blocks)
        if not target.suffix:
            return _into_folder(target, loader, encoder, bar)
        partial = target.with_name(f"{target.name}.partial")
        rows = _into_folder(partial, loader, encoder, bar)
        with HammingIndex.open(partial) as index, contextlib.ExitStack() as quiet:
            if target.suffix.lower() in FILES[:3]:  # they have no room for keys, as is said above
                quiet.enter_context(_without_warnings())
            index.export(target)
        shutil.rmtree(partial)
        return rows


class _Batch(NamedTuple):
    """x as `unpacked` gives it, and the keys of its rows."""

    places: tuple[Tensor, ...]
    names: dict[str, Tensor]
    keys: list[str] | None

    def __len__(self) -> int:
        return len(next(iter((*self.places, *self.names.values()))))


class _Encoder:
    """The module, and how many rows it has seen."""

    def __init__(self, module: nn.Module, device: torch.device, threshold: float) -> None:
        self.module, self.device, self.threshold, self.start = module, device, threshold, 0
        floating = (p.dtype for p in module.parameters() if p.is_floating_point())
        self.dtype = next(floating, torch.get_default_dtype())

    def batch(self, given: Any) -> _Batch:
        """The parts of a batch that count."""
        keys: list[str] | None = None
        if isinstance(given, Mapping):
            named = [name for name in KEYS if name in given]
            keys = None if not named else list(given[named[0]])
            x: Any = {name: part for name, part in given.items() if name not in (*named, *TARGETS)}
        elif isinstance(given, (Tensor, np.ndarray)):
            x = given
        else:
            parts = list(given)
            texts = [part for part in parts[1:] if _is_texts(part)]
            keys = list(texts[0]) if texts else None
            x = parts[:1]
        found = unpacked(x, self.module, self.device, self.dtype)
        batch = _Batch(found.places, found.names, keys)
        if keys is not None and len(keys) != len(batch):
            raise ValueError(f"encode: a batch must have a key for each of its {len(batch)} rows, got {len(keys)}")
        return batch

    def codes(self, batch: _Batch, rows: Any) -> NDArray[np.uint8]:
        """Packed codes of some rows of a batch."""
        places, names = (x[rows] for x in batch.places), {name: x[rows] for name, x in batch.names.items()}
        z = self.module(*places, **names)
        if not isinstance(z, Tensor) or z.ndim != 2:
            got = f"shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(f"encode: the module must give outputs [B, bits], got {got}")
        bad = torch.isnan(z).any(1)
        if bad.any():
            row = int(torch.arange(len(batch), device=z.device)[rows][bad.nonzero()[0, 0]])
            what = f"row {self.start + row}" if batch.keys is None else repr(batch.keys[row])
            raise ValueError(f"encode: the module gave NaN for {what}")
        self.bits = z.shape[1]
        packed: NDArray[np.uint8] = pack_bits(z, self.threshold).cpu().numpy()
        return packed


def _batches(loader: Iterable[Any], encoder: _Encoder) -> Iterator[_Batch]:
    for given in loader:
        batch = encoder.batch(given)
        if len(batch):
            yield batch
        encoder.start += len(batch)


def _into_folder(folder: Path, loader: Iterable[Any], encoder: _Encoder, bar: tqdm[Any]) -> int:
    """Adds the codes that the folder's index does not hold; gives how many it holds then."""
    writer: _Writer | None = None
    try:
        for batch in _batches(loader, encoder):
            if writer is None:
                writer = _Writer(folder, encoder, batch)
            writer.take(batch)
            bar.update(len(batch))
    except BaseException:
        if writer is not None:
            writer.close(suppress=True)  # what is encoded is kept; the first error is the one to tell
        raise
    if writer is None:
        raise ValueError("encode: the loader must give at least one batch, got none")
    return writer.close()


class _Writer:
    """The index of a folder, and codes that are not yet in it."""

    def __init__(self, folder: Path, encoder: _Encoder, first: _Batch) -> None:
        self.encoder, self.folder, self.keyed = encoder, folder, first.keys is not None
        self.codes: list[NDArray[np.uint8]] = []
        self.keys: list[str] = []
        self.rows, self.since, self.compared = 0, time.monotonic(), False
        if not folder.exists():
            encoder.codes(first, slice(0, 1))
            HammingIndex(encoder.bits).save(folder)
        self.index = HammingIndex.open(folder, writable=True)
        self.there = len(self.index)
        if self.there and self.index.keyed != self.keyed:
            self.index.close()
            one, other = ("has", "has none") if self.index.keyed else ("has no", "has some")
            raise ValueError(f"encode: {folder} {one} keys, and the loader {other}: name another folder")

    def take(self, batch: _Batch) -> None:
        """Adds the rows of a batch that are not there."""
        if (batch.keys is not None) != self.keyed:
            raise ValueError("encode: all batches of a loader must have keys, or none, got both")
        if batch.keys is None:
            known = np.arange(self.encoder.start, self.encoder.start + len(batch)) < self.there
        elif self.there:
            known = self.index.ids_of(batch.keys) >= 0
        else:
            known = np.zeros(len(batch), bool)
        if known.any() and not self.compared:
            self._compare(batch, known)
        new = np.flatnonzero(~known)
        if len(new):
            self.codes.append(
                self.encoder.codes(batch, slice(None) if len(new) == len(batch) else torch.from_numpy(new))
            )
            self.keys += [] if batch.keys is None else [batch.keys[row] for row in new]
            self.rows += len(new)
        if self.rows >= ROWS or (self.rows and time.monotonic() - self.since > SECONDS):
            self.flush()

    def flush(self) -> None:
        """Makes all codes so far durable."""
        if self.rows:
            self.index.add(np.concatenate(self.codes), keys=self.keys if self.keyed else None)
        self.codes, self.keys, self.rows, self.since = [], [], 0, time.monotonic()

    def close(self, suppress: bool = False) -> int:
        """Flushes and closes; gives the number of rows."""
        try:
            with contextlib.suppress(*((Exception,) if suppress else ())):
                self.flush()
            return len(self.index)
        finally:
            self.index.close()

    def _compare(self, batch: _Batch, known: NDArray[np.bool_]) -> None:
        """Refuses to go on with codes of another module."""
        self.compared = True
        rows = np.flatnonzero(known)
        now = self.encoder.codes(batch, torch.from_numpy(rows))
        if self.encoder.bits != self.index.bits:
            raise ValueError(
                f"encode: {self.folder} holds codes of {self.index.bits} bits, and the module gives "
                f"{self.encoder.bits}: name another folder"
            )
        if batch.keys is None:
            then = self.index.get(self.encoder.start + rows)
        else:
            then = self.index.get(keys=[batch.keys[row] for row in rows])
        differ = np.unpackbits(np.asarray(then) ^ now).sum() / (len(rows) * self.encoder.bits)
        if differ > 1 - SAME:
            raise ValueError(
                f"encode: {self.folder} holds codes of another module or other inputs "
                f"({100 * differ:.0f} % of the bits differ): name another folder, or remove that one"
            )


def _is_texts(part: Any) -> bool:
    return isinstance(part, Sequence) and not isinstance(part, str) and all(isinstance(text, str) for text in part)


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; each of its parts is as it was afterwards."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _bar(loader: Iterable[Any], progress: bool | None) -> tqdm[Any]:
    """The number of rows, if the loader has a length."""
    try:
        total = len(loader.dataset)  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        total = None
    hidden = None if progress is None else not progress
    return tqdm(total=total, desc="encode", unit="row", unit_scale=True, disable=hidden)
