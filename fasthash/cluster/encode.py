"""Encoding on many machines: Ray Data runs the model over blocks of rows, and one process writes the index."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._arguments import number as checked_number
from fasthash._arguments import whole
from fasthash._arrays import to_tensor
from fasthash._checkpoint import LINEAR, MODEL, Kind, is_file_of, load_checkpoint
from fasthash.baselines import LinearCodes
from fasthash.cluster.encode_work import EncodeWork
from fasthash.cluster.engine import ray_for
from fasthash.cluster.row_files import STEP, RowBlock, RowFile, blocks_of, open_files, read_block, read_ids
from fasthash.codes import code_bytes
from fasthash.embeddings.encoders import bits_of, encoder_bytes, features_of, weights_of
from fasthash.index.exchange.build import build
from fasthash.index.exchange.key_sources import open_keys
from fasthash.index.exchange.sources import Block, Source, with_keys
from fasthash.index.groups import groups_of
from fasthash.index.hamming_index import HammingIndex
from fasthash.index.keys import KeyRows
from fasthash.index.progress import progress_bar
from fasthash.index.store.writer import _check_free
from fasthash.train import Hasher
from fasthash.train.checksum import fingerprint

_FUNCTION = "cluster.encode"
_RETRIES = 3  # of a block whose worker died, and of a worker


def encode(
    model: Any,
    source: Any,
    out: str | os.PathLike[str],
    *,
    column: str | None = None,
    id_column: str | None = None,
    key_column: str | None = None,
    block_rows: int = 1 << 16,
    workers: int | None = None,
    gpus: float = 0,
    overwrite: bool = False,
    progress: bool | None = None,
) -> HammingIndex:
    """Encodes files of embeddings on a Ray cluster into an index folder, and opens it.

    The codes and ids are those of `model.encode` over the files in one process. Ray Data gives blocks of rows to
    workers. A worker that dies is started again, and its block is encoded anew: each block counts once. Where the
    calling process dies, the same call goes on with the blocks that are not done yet. It keeps them in a folder
    `.NAME.encoding` beside `out`, until the index is written.

    Args:
        model: a fitted Hasher or LinearCodes, or the path of one, as `save` writes it. Ray gives workers its bytes.
        source: a .npy, Parquet or Arrow file, a list of such files, or a folder, of which the files are read in the
            order of their names. Workers read them by these paths: on more than one machine, they must be on a disk
            that all machines see, under the same path.
        out: the folder of the index, on a disk of the calling process.
        column, id_column: the columns of embeddings and ids in tables, as in `EmbeddingIndex.build`. The column "id" or
            "ids" holds the ids, where there is one; else rows are numbered from 0 through all files.
        key_column: the column of keys in tables.
        block_rows: rows of a block, the least work that is done again after a failure. It is rounded up to 16,384, and
            to a row group of Parquet or a batch of Arrow where these are larger.
        workers: how many processes encode at once; None: as many as the cluster has free CPUs, or GPUs, by `gpus` each.
        gpus: of a worker: 0 encodes on CPUs, one core a worker.
        overwrite: an index in `out` is replaced, in one step at the end.
        progress: a bar of rows on stderr; None: if that is a terminal.

    The calling process needs as much memory as `HammingIndex.build`, a worker that of 16,384 rows and its model. It
    starts Ray on this machine where `ray.init` was not called before.

    Raises:
        ValueError, TypeError: an argument outside these limits, rows that are no finite numbers or have another
            number of features, ids or keys that repeat, or a folder `.NAME.encoding` of a call with other arguments.
        OSError: a file cannot be read, or the disk is full; the same call goes on later.
        RuntimeError: a block could not be encoded, because its worker died 4 times.
        ImportError: ray is not installed.
        IndexFolderError: `out` holds an index, without overwrite=True, or something else.
    """
    ray = ray_for(_FUNCTION)
    fitted = _model(model)
    target = Path(out).absolute()
    size = whole(block_rows, _FUNCTION, "block_rows", 1)
    count = None if workers is None else whole(workers, _FUNCTION, "workers", 1)
    gpus = checked_number(gpus, _FUNCTION, "gpus", least=0)
    files = open_files(source, column, id_column, _FUNCTION)
    blocks = blocks_of(files, size)
    keys = None if key_column is None else _keys_of(files, key_column)  # a column that is not there is known now
    bits, with_ids = bits_of(fitted), files[0].id_column is not None
    plan = _plan(fitted, files, blocks)
    work = EncodeWork(target, plan, blocks, code_bytes(bits), with_ids, _FUNCTION)
    try:
        overwrite = overwrite or work.may_replace
        if target.exists():
            _check_free(target, overwrite)
        rows = [block.stop - block.start for block in blocks]
        with progress_bar("encode", sum(rows), "row", progress) as bar:
            bar.update(sum(rows[number] for number in work.done))
            if len(work.done) < len(blocks):
                results = _results(ray, encoder_bytes(fitted), files, blocks, sorted(work.done), count, gpus)
                for number, codes, ids in results:
                    if work.add(number, codes.reshape(-1, work.codes.shape[1]), ids):
                        bar.update(rows[number])
        if len(work.done) < len(blocks):
            raise RuntimeError(f"{_FUNCTION}: Ray returned {len(work.done)} of {len(blocks)} blocks; call it again")
        work.begin_index()
        coded = Source(bits, len(work.codes), _coded(work))
        named = coded if keys is None else with_keys(coded, keys, _FUNCTION)
        build(target, named, overwrite, groups_of(weights_of(fitted), bits, _FUNCTION), progress)
    except BaseException:
        work.close()
        raise
    work.remove()
    return HammingIndex.open(target)


def _model(model: Any) -> Hasher | LinearCodes:
    if isinstance(model, (str, os.PathLike)):
        return LinearCodes.load(model) if is_file_of(model, LINEAR) else Hasher.load(model)
    if not isinstance(model, (Hasher, LinearCodes)):
        raise TypeError(
            f"{_FUNCTION}: model must be a fitted Hasher or LinearCodes, or the path of one, got {type(model).__name__}"
        )
    if isinstance(model, Hasher) and not hasattr(model, "module_"):
        raise ValueError(f"{_FUNCTION}: model must be fitted, got a Hasher before fit")
    return model


def _kind_of(model: Hasher | LinearCodes) -> Kind:
    return MODEL if isinstance(model, Hasher) else LINEAR


def _plan(model: Hasher | LinearCodes, files: Sequence[RowFile], blocks: Sequence[RowBlock]) -> dict[str, Any]:
    """The settings that must equal those of the interrupted call that this call continues."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        file.write_bytes(encoder_bytes(model))
        tensors, content = load_checkpoint(file, _kind_of(model))  # the bytes of a file may differ for equal models
    parts = [part for name in sorted(tensors) for part in (name, tensors[name])]
    found = [(file, os.stat(file.path)) for file in files]
    return {
        "version": 1,
        "model": fingerprint(json.dumps(content, sort_keys=True), *parts),
        "source": [[file.path, file.rows, stat.st_size, stat.st_mtime_ns] for file, stat in found],
        "columns": [[file.columns, file.id_column] for file in files],
        "block_rows": [[block.file, block.start, block.stop] for block in blocks],
    }


def _keys_of(files: Sequence[RowFile], key_column: str) -> Iterator[KeyRows]:
    opened = [open_keys(None, key_column, file.path, _FUNCTION) for file in files]
    return (rows for keys in opened for rows in keys)


def _coded(work: EncodeWork) -> Iterator[Block]:
    for start in range(0, len(work.codes), STEP):
        span = slice(start, start + STEP)
        ids = None if work.ids is None else to_tensor(work.ids[span])
        yield Block(to_tensor(work.codes[span]), ids)


def _results(
    ray: Any,
    model: bytes,
    files: Sequence[RowFile],
    blocks: Sequence[RowBlock],
    done: Sequence[int],
    workers: int | None,
    gpus: float,
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.int64] | None]]:
    """The codes and ids of all blocks that are not done, in the order in which they come."""
    data = importlib.import_module("ray.data")
    if not ray.is_initialized():
        ray.init()
    left = set(done)
    items = [{"number": n, "block": list(block)} for n, block in enumerate(blocks) if n not in left]
    free = ray.available_resources()
    fits = int(free.get("GPU", 0) / gpus) if gpus else int(free.get("CPU", 1))
    count = min(len(items), max(1, fits if workers is None else workers))
    with _quiet(data):
        # Without a limit Ray Data tries a block for ever; ray 2.60 has no other way to say one.
        retries = {"max_restarts": _RETRIES, "max_task_retries": _RETRIES}
        encoded = data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Worker,
            batch_size=1,
            batch_format="numpy",
            fn_constructor_args=(ray.put(model), ray.put([tuple(file) for file in files]), gpus > 0),
            compute=data.ActorPoolStrategy(size=count),
            num_cpus=1,
            num_gpus=gpus or None,
            ray_remote_args_fn=lambda: retries,
        )
        try:
            for batch in encoded.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
                for number, codes, ids, error in zip(*(batch[name] for name in _COLUMNS), strict=True):
                    if error:
                        kind, _, text = error.partition(" ")
                        raise _ERRORS[kind](text)
                    named = np.frombuffer(ids, "<i8") if ids else None
                    yield int(number), np.frombuffer(codes, np.uint8), named
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()[-1].partition(". ")[0]
            raise RuntimeError(
                f"{_FUNCTION}: a block could not be encoded in {_RETRIES + 1} tries ({said}); repeat the call to "
                "continue with the remaining blocks"
            ) from error


_COLUMNS = ("number", "codes", "ids", "error")
_ERRORS: dict[str, type[Exception]] = {"ValueError": ValueError, "TypeError": TypeError, "OSError": OSError}


class _Worker:
    """A process that encodes blocks, with a model of its own."""

    def __init__(self, model: Any, files: Any, gpu: bool):
        ray = ray_for(_FUNCTION)
        self.files = [RowFile(*file) for file in ray.get(files)]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.safetensors"
            file.write_bytes(ray.get(model))
            kind: type[Hasher | LinearCodes] = LinearCodes if is_file_of(file, LINEAR) else Hasher
            self.model = kind.load(file, device="cuda" if gpu else "cpu")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A block's number, file, start, stop and place -> its number, codes and ids, or what is wrong with it."""
        number = batch["number"][0]
        codes, ids, error = b"", b"", ""
        try:
            codes, ids = self._encoded(RowBlock(*(int(value) for value in batch["block"][0])))
        except tuple(_ERRORS.values()) as caught:  # an answer: to try again would change nothing
            kind = next(name for name, error_type in _ERRORS.items() if isinstance(caught, error_type))
            error = f"{kind} {caught}"
        return {"number": np.array([number]), "codes": [codes], "ids": [ids], "error": [error]}

    def _encoded(self, block: RowBlock) -> tuple[bytes, bytes]:
        file, wanted = self.files[block.file], features_of(self.model)
        parts = []
        for rows in read_block(file, block.start, block.stop, _FUNCTION):
            if rows.shape[1] != wanted:
                raise ValueError(f"{_FUNCTION}: {file.path} has {rows.shape[1]} features, the model takes {wanted}")
            parts.append(self.model.encode(rows.numpy()))
        ids = read_ids(file, block.start, block.stop, _FUNCTION)
        return np.concatenate(parts).tobytes(), b"" if ids is None else ids.astype("<i8").tobytes()


@contextlib.contextmanager
def _quiet(data: Any) -> Iterator[None]:
    """Without Ray Data's own bars and notes, as there is one bar of rows."""
    context, log = data.DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, log.level
    context.enable_progress_bars = False
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`ray_remote_args_fn`")
            yield
    finally:
        context.enable_progress_bars = bars
        log.setLevel(level)
