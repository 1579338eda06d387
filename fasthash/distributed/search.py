"""Exact search over codes that lie in shards, one on each rank: all ranks get the nearest codes of all shards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import xxhash
from torch import Tensor

from fasthash._arguments import whole
from fasthash._arrays import like
from fasthash._bit_weights import bit_weights as flat_bit_weights
from fasthash.distributed.faults import rank_faults
from fasthash.distributed.processes import check_member, rank, world_size
from fasthash.hamming import SearchResult, _code_pair, hamming_topk

_GATHERED_BYTES = 1 << 26  # distances and ids of all ranks that are held at once
_RESULT_BYTES = 12  # a distance and an id
_ERRORS: list[type[Exception]] = [RuntimeError, ValueError, TypeError, MemoryError]
_TEXT_BYTES = 512  # of an error message that is sent to other ranks
_FAR = torch.iinfo(torch.int32).max  # distance of a place that a small shard cannot fill


def topk(queries: Any, shard: Any, k: int, *, group: Any = None, bit_weights: Any = None) -> SearchResult:
    """Finds the k nearest codes of each query among the shards of all ranks, exactly; every rank gets the result.

    Every rank of the group calls this with the same queries and its own shard. The result is that of `hamming_topk`
    over all shards one after the other, in rank order.

    Args:
        queries: packed codes uint8 [Q, W], tensor or numpy array, **the same on all ranks**. A checksum of them is
            compared. One query may be [W].
        shard: this rank's packed codes uint8 [N_r, W] on the device of the queries. N_r may differ, and be 0.
        k: 1 to the number of codes in all shards, the same on all ranks.
        group: a torch.distributed process group: Gloo for tensors on the CPU, NCCL for CUDA tensors. None: the default
            group; without one, this process alone.
        bit_weights: as in `hamming_topk`, the same on all ranks.

    Returns:
        Distances int32 [Q, k] and ids int64 [Q, k], ordered by (distance, id), the same on all ranks. An id is the
        position in the concatenation of the shards in rank order: the codes of rank 0 come first.

        A rank sends Q x min(k, largest N_r) x 12 bytes. Beside its own results of that size, and the result, it holds
        64 MiB of those of all ranks at once (more only where one query's results are larger).

    Raises:
        ValueError, TypeError: an argument outside these limits, or one that differs between ranks. An error on
            one rank is raised on all of them and names the rank, so no rank waits for another.
        RankLostError: another rank has stopped, or did not answer within the timeout of the group.

    >>> import numpy as np
    >>> shard = np.array([[0b00000000], [0b00000011], [0b00000001]], dtype=np.uint8)
    >>> topk(shard[:1], shard, 2).ids.tolist()  # one process; by torchrun, of the shards of all
    [[0, 2]]
    """
    group = _group_of(group)
    where = _message_device(group)
    own: _Local | None = None
    failure: Exception | None = None
    try:
        own = _search(queries, shard, k, bit_weights, group)
    except Exception as error:
        if group is None:
            raise
        failure = error
    with rank_faults(group, "topk"):
        notes = _exchanged(_note(own, failure), group, where)
        _check(notes, failure)
        if own is None:
            raise RuntimeError("topk: a failure was noted and not raised")
        first = sum(note.rows for note in notes[: rank(group)])
        result = _merged(own, first, max(note.found for note in notes), group)
    return SearchResult(*(like(part, queries) for part in result))


class _Local(NamedTuple):
    """What a rank found in its own shard, and the values that must be equal on all ranks."""

    distances: Tensor  # int32 [Q, min(k, N_r)]
    ids: Tensor  # int64, positions in the shard
    k: int
    rows: int
    width: int
    queries: int  # checksums
    weights: int


class _Note(NamedTuple):
    """The note of each rank to the others before results are exchanged: numbers of 64 bits, then an error's text."""

    failure: int  # 0: none, else the place of the error's type in _ERRORS, + 1
    width: int
    number: int  # Q
    queries: int  # a checksum, and so are
    weights: int
    k: int
    device: int  # 0: CPU, 1: CUDA
    rows: int
    found: int  # min(k, N_r)
    text: str = ""


_NUMBERS = len(_Note._fields) - 1
_ALIKE = {  # fields that must be equal on all ranks
    "width": "codes of one width, got {0} bytes on rank {ranks[0]} and {1} on rank {ranks[1]}",
    "number": "the same queries, got {0} on rank {ranks[0]} and {1} on rank {ranks[1]}",
    "queries": "the same queries, those of rank {ranks[0]} and rank {ranks[1]} differ",
    "weights": "the same bit_weights, those of rank {ranks[0]} and rank {ranks[1]} differ",
    "k": "the same k, got {0} on rank {ranks[0]} and {1} on rank {ranks[1]}",
    "device": "codes on one kind of device, those of rank {ranks[0]} and rank {ranks[1]} are on CPU and GPU",
}


def _group_of(group: Any) -> Any:
    """The group to search with, None for one process."""
    if group is not None:
        check_member(group, "topk")
        return group
    if dist.is_available() and dist.is_initialized():
        return dist.group.WORLD
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1:
        raise ValueError(f"topk: {started} processes were started and have no group; call fasthash.distributed.join()")
    return None


def _kinds(group: Any) -> dict[str, str]:
    """The backend of each kind of device that the group can exchange tensors of."""
    return dict(part.split(":") for part in dist.get_backend_config(group).split(","))


def _message_device(group: Any) -> torch.device:
    """The device of notes during the exchange. It depends only on the group, so all ranks use the same kind."""
    if group is None or "cpu" in _kinds(group):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def _search(queries: Any, shard: Any, k: Any, bit_weights: Any, group: Any) -> _Local:
    codes, base = _code_pair("topk", queries, shard, names=("queries", "shard"))
    k = whole(k, "topk", "k", 1, len(base) if group is None else None)
    weights = flat_bit_weights(bit_weights, "topk", base.shape[1])
    if group is not None and base.device.type not in _kinds(group):
        kinds = " and ".join(kind.upper() for kind in _kinds(group))
        raise ValueError(f"topk: the group exchanges tensors of {kinds} only, got codes on {base.device}")
    found = min(k, len(base))
    if found and len(codes):
        distances, ids = hamming_topk(codes, base, found, bit_weights=bit_weights)
    else:
        shape = len(codes), found
        distances = torch.zeros(shape, dtype=torch.int32, device=base.device)
        ids = torch.zeros(shape, dtype=torch.int64, device=base.device)
    given = codes.cpu().contiguous().numpy()
    checksums = _checksum(given.tobytes()), _checksum(str(weights).encode())
    return _Local(distances, ids, k, len(base), base.shape[1], *checksums)


def _checksum(content: bytes) -> int:
    """64 bits as a signed number, as a tensor of int64 holds it."""
    return int(xxhash.xxh3_64_intdigest(content)) - (1 << 63)


def _note(own: _Local | None, failure: Exception | None) -> _Note:
    if own is None:
        kind = next((i for i, error in enumerate(_ERRORS) if i and isinstance(failure, error)), 0)
        return _Note(kind + 1, 0, 0, 0, 0, 0, 0, 0, 0, str(failure))
    on_gpu = int(own.distances.device.type != "cpu")
    alike = own.width, len(own.distances), own.queries, own.weights, own.k, on_gpu
    return _Note(0, *alike, own.rows, own.distances.shape[1])


def _exchanged(note: _Note, group: Any, device: torch.device) -> list[_Note]:
    """The notes of all ranks."""
    if group is None:
        return [note]
    text = note.text.encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0")
    words = torch.tensor(note[:_NUMBERS], dtype=torch.int64)
    sent = torch.cat([words.view(torch.uint8), torch.frombuffer(bytearray(text), dtype=torch.uint8)])
    received = _gathered(sent.to(device), group).cpu()
    split = 8 * _NUMBERS
    return [_Note._make([*row[:split].view(torch.int64).tolist(), _text(row[split:])]) for row in received]


def _text(row: Tensor) -> str:
    return row.numpy().tobytes().rstrip(b"\0").decode("utf-8", "ignore")  # a message may be cut inside a character


def _check(notes: list[_Note], failure: Exception | None) -> None:
    """Raises the same error on all ranks, where there is one."""
    for number, note in enumerate(notes):
        if note.failure:
            text = note.text.removeprefix("topk: ")
            raise _ERRORS[note.failure - 1](f"topk: on rank {number}: {text}") from failure
    for name, words in _ALIKE.items():
        values = [getattr(note, name) for note in notes]
        other = next((number for number, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            said = words.format(values[0], values[other], ranks=(0, other))
            raise ValueError(f"topk: all ranks must have {said}")
    whole(notes[0].k, "topk", "k", 1, sum(note.rows for note in notes), "codes in all shards")


def _merged(own: _Local, first: int, found: int, group: Any) -> tuple[Tensor, Tensor]:
    """The k best of all ranks, from `found` places of each; first: the id of this rank's first code."""
    world, count = world_size(group), len(own.distances)
    distances = own.distances.new_empty(count, own.k)
    ids = own.ids.new_empty(count, own.k)
    for span in _spans(count, world * found * _RESULT_BYTES):
        near = _gathered(_padded(own.distances[span], found, _FAR), group)
        named = _gathered(_padded(own.ids[span] + first, found, 0), group)
        distances[span], ids[span] = _best(near, named, own.k)
    return distances, ids


def _best(distances: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best [Q, k] of the lists of all ranks [ranks, Q, found], by (distance, id)."""
    # A row gets the lists in rank order. Within equal distances that is the order of ids, which a stable sort keeps.
    near, named = (part.transpose(0, 1).flatten(1) for part in (distances, ids))
    near, order = near.sort(dim=1, stable=True)
    return near[:, :k], named.gather(1, order[:, :k])


def _spans(count: int, row_bytes: int) -> Iterator[slice]:
    rows = max(1, _GATHERED_BYTES // max(row_bytes, 1))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def _padded(part: Tensor, columns: int, value: int) -> Tensor:
    return torch.nn.functional.pad(part, (0, columns - part.shape[1]), value=value).contiguous()


def _gathered(part: Tensor, group: Any) -> Tensor:
    """Tensors of one shape [...] of all ranks, [ranks, ...]."""
    if group is None:
        return part[None]
    whole_group = part.new_empty(dist.get_world_size(group), *part.shape)
    dist.all_gather(list(whole_group.unbind()), part, group=group)
    return whole_group
