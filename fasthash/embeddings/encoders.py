"""The encoders of an EmbeddingIndex: fitted by name, checked, and as bytes of the file that keeps them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthash._arguments import MAX_BITS, choice, whole
from fasthash._arrays import dtype_name, to_tensor
from fasthash._checkpoint import GRID, LINEAR, MODEL, is_file_of
from fasthash._directions import unit_rows
from fasthash.baselines import GridCodes, LinearCodes, itq, lsh, osq, pca_sign, rabitq, turboquant
from fasthash.baselines.grid_codes import MOST_PLANES
from fasthash.index.errors import IndexFolderError
from fasthash.train import Hasher

Encoder = Hasher | LinearCodes | GridCodes

ROWS = 1 << 14  # rows that are encoded at once
FIT_ROWS = 50_000  # the first rows, on which an encoder is fitted that is given by name
MOST_SIGNS = 256  # bits of signs of a linear map unless `bits` says otherwise
_SIGNS: dict[str, Callable[[Tensor, int], LinearCodes]] = {"itq": itq, "lsh": lsh, "pca_sign": pca_sign}
_GRIDS: dict[str, Callable[[Tensor, int], GridCodes]] = {"osq": osq, "rabitq": rabitq, "turboquant": turboquant}
NAMES = (*_SIGNS, *_GRIDS)


def check_encoder(encoder: Any, bits: Any, function: str) -> None:
    """Raises TypeError or ValueError for what is neither a fitted encoder nor a name, or for bits beside the former."""
    if isinstance(encoder, str):
        choice(encoder, function, "encoder", NAMES)
        if bits is not None:
            whole(bits, function, "bits", 1, MAX_BITS)
        return
    if not isinstance(encoder, Encoder):
        raise TypeError(
            f"{function}: encoder must be a fitted Hasher, LinearCodes or GridCodes, or one of the names "
            f"{', '.join(NAMES)}, got {type(encoder).__name__}"
        )
    if bits is not None:
        raise ValueError(f"{function}: bits must be None for an encoder object (only a name takes bits), got {bits!r}")
    if isinstance(encoder, Hasher) and not hasattr(encoder, "module_"):
        raise ValueError(f"{function}: encoder must be fitted, got a Hasher before fit")


def can_have(name: str, bits: int | None, features: int) -> bool:
    """Whether an encoder of this name can have codes of so many bits."""
    if bits is None or name == "lsh":
        return True
    return bits <= features if name in _SIGNS else bits % features == 0 and bits // features <= MOST_PLANES


def fit_encoder(name: str, bits: int | None, rows: Tensor, function: str) -> LinearCodes | GridCodes:
    """The encoder of that name, fitted on rows [N, F].

    bits=None: one for each feature, for signs of a linear map 256 at most. Raises ValueError for bits that the encoder
    cannot have, and for too few rows.
    """
    count, features = rows.shape
    if name in _GRIDS:
        wanted = features if bits is None else bits
        planes = wanted // features
        if wanted % features or not 1 <= planes <= MOST_PLANES:
            raise ValueError(
                f"{function}: bits of {name!r} must be 1 to {MOST_PLANES} times the {features} features, got {bits}"
            )
        least = 2
    else:
        wanted = min(features, MOST_SIGNS) if bits is None else bits
        if name != "lsh" and wanted > features:
            raise ValueError(f"{function}: bits of {name!r} must be at most the {features} features, got {wanted}")
        least = 2 if name == "lsh" else wanted
    if count < least:
        raise ValueError(
            f"{function}: {name!r} of {wanted} bits is fitted on the first rows that are added and needs at least "
            f"{least}, got {count}; add more rows at once, or pass a fitted encoder"
        )
    return _GRIDS[name](rows, planes) if name in _GRIDS else _SIGNS[name](rows, wanted)


def features_of(encoder: Encoder) -> int:
    return int(encoder.n_features_in_)


def bits_of(encoder: Encoder) -> int:
    """Bits of a code."""
    if isinstance(encoder, Hasher):  # its attribute may have been set anew since fit
        return int(encoder.queries(np.zeros((1, features_of(encoder)), np.float32)).shape[1])
    return encoder.bits


def weights_of(encoder: Encoder) -> list[tuple[int, int]] | None:
    """The weights of its bits in Hamming distances (`bit_weights`)."""
    return encoder.bit_weights_ if isinstance(encoder, Hasher) else None


def has_scales(encoder: Encoder, metric: str, unit_rows: bool) -> bool:
    """Whether codes get a scale: those of quantisers. They tell inner products and distances, and no other cosines."""
    return isinstance(encoder, GridCodes) and (metric != "cosine" or unit_rows)


def scales_of(encoder: Encoder, rows: Tensor, codes: Tensor, metric: str) -> Tensor | None:
    """The code_scale float16 [n] of codes of rows as the encoder takes them."""
    if not isinstance(encoder, GridCodes):
        return None
    scales: Tensor = encoder.scales(rows, codes, metric=_form(metric))
    return scales


def scan_queries(encoder: Encoder, rows: Tensor, metric: str, scaled: bool) -> tuple[Tensor, str]:
    """Queries float32 [Q, bits] for `search(rescore="all")`, and its metric. scaled: codes have scales.

    Without scales a query is taken from the mean, as rows are where codes are made: measured, that finds more.
    """
    if not isinstance(encoder, GridCodes):
        return encoder.queries(rows), "l1"
    if not scaled:
        return encoder.queries(rows - encoder.mean.to(rows.device), metric="dot"), "dot"
    return encoder.queries(rows, metric=_form(metric)), _form(metric)


def _form(metric: str) -> str:
    return "l2" if metric == "l2" else "dot"


def checked_rows(X: Any, features: int | None, function: str, name: str = "X") -> Tensor:
    """X [N, F] as a tensor on the CPU, not read yet; one row may be [F]. Raises ValueError or TypeError."""
    rows = to_tensor(X, function, name).detach()
    if rows.dim() == 1:
        rows = rows[None]
    if rows.dim() != 2 or rows.shape[1] < 1:
        raise ValueError(f"{function}: {name} must have shape [N, F] with F >= 1, got {tuple(rows.shape)}")
    if rows.is_complex() or rows.dtype == torch.bool:
        raise TypeError(f"{function}: {name} must be real numbers, got {dtype_name(rows)}")
    if features is not None and rows.shape[1] != features:
        raise ValueError(f"{function}: {name} must have {features} features, got {rows.shape[1]}")
    return rows.cpu()


def block_of(rows: Tensor, start: int, function: str, name: str = "X") -> Tensor:
    """The next `ROWS` rows as float32; raises ValueError for NaN and infinity, naming the row."""
    block = rows[start : start + ROWS].float()
    bad = ~torch.isfinite(block).all(1)
    if bool(bad.any()):
        row = start + int(bad.int().argmax())
        raise ValueError(f"{function}: {name} must be finite in float32, got NaN or infinity in row {row}")
    return block


def encoder_rows(block: Tensor, unit: bool) -> Tensor:
    """Rows as the encoder takes them. unit: over their lengths."""
    return unit_rows(block.double()).float() if unit else block


def stored_rows(block: Tensor, metric: str) -> NDArray[np.float32]:
    """Rows as re-ranking takes them: for cosines over their lengths."""
    values: NDArray[np.float32] = encoder_rows(block, metric == "cosine").numpy()
    return values


def encoder_bytes(encoder: Encoder) -> bytes:
    """The encoder as one file holds it, which `save` writes."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "encoder.safetensors"
        encoder.save(where)
        return where.read_bytes()


def encoder_from(data: bytes, where: str) -> Encoder:
    """The encoder that `encoder_bytes` gave; raises IndexFolderError, beginning with `where`, for anything else."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "encoder.safetensors"
        file.write_bytes(data)
        for kind, load in ((MODEL, Hasher.load), (LINEAR, LinearCodes.load), (GRID, GridCodes.load)):
            if is_file_of(file, kind):
                try:
                    return load(file)
                except ValueError as error:
                    raise IndexFolderError(f"{where}: {str(error).replace(str(file), 'its encoder')}") from None
    raise IndexFolderError(f"{where}: its encoder is not a file of Hasher, LinearCodes or GridCodes")
