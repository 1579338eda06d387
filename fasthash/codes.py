"""Packed binary codes: the only place that knows the order of the bits.

The order is that of `numpy.packbits` (bit 0 is the highest bit of byte 0; the last byte is padded with zeros), so codes
can be exchanged with faiss binary indexes and with sentence-transformers' `ubinary` embeddings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasthash._arguments import whole
from fasthash._arrays import dtype_name, in_graph, like, to_tensor
from fasthash._warnings import warn

BLOCK = 1 << 19  # bytes of values that are packed at once: they fit a second-level cache
_WITHOUT_NUMPY = (torch.float16, torch.bfloat16)  # numpy has no such type, or compares it one by one

# torch compares only the older integer types on every device.
_WIDE = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.float64}


def code_bytes(bits: int) -> int:
    """Bytes of one packed code of `bits` bits.

    >>> code_bytes(64), code_bytes(65)
    (8, 9)
    """
    return (whole(bits, "code_bytes", "bits", 0) + 7) // 8


def pack_bits(z: Any, threshold: Any = 0.5) -> Any:
    """Rounds outputs to bits and packs them: bit d of a code is `z[..., d] > threshold`.

    z: [..., D], D >= 1, any floating, integer or boolean type, numpy or torch on any device. threshold: a number, or
    one for each bit, [D]; it is compared in z's own floating type. Gives uint8 [..., ceil(D / 8)], numpy for numpy and
    torch for torch, on z's device, in the bit order of `numpy.packbits`. Raises ValueError for NaN (it is neither bit)
    and TypeError for what is not numeric. Warns where no value is above the threshold 0.5 and some are below 0: such
    values are signed, and `threshold=0` takes their signs.

    torch.compile, torch.export, torch.jit.trace and ONNX take it as part of a graph. A graph cannot look at values:
    there NaN gives the bit 0, and nothing warns.

    >>> import numpy as np
    >>> pack_bits(np.array([[0.9, 0.1, 0.8, 0.2]]))
    array([[160]], dtype=uint8)
    """
    values = to_tensor(z, "pack_bits", "z").detach()
    if values.is_complex():
        raise TypeError(f"pack_bits: z must be real, got {dtype_name(values)}")
    if values.ndim < 1 or values.shape[-1] < 1:
        raise ValueError(f"pack_bits: z must be [..., D] with D >= 1, got shape {tuple(values.shape)}")
    values = values.to(_WIDE.get(values.dtype, values.dtype))
    dtype = values.dtype if values.is_floating_point() else torch.float64
    if isinstance(threshold, (int, float)):
        limit = torch.full((), float(threshold), device=values.device, dtype=dtype)
    else:
        limit = to_tensor(threshold, "pack_bits", "threshold").detach().to(device=values.device, dtype=dtype)
    if limit.ndim > 1 or (limit.ndim == 1 and len(limit) != values.shape[-1]):
        raise ValueError(
            f"pack_bits: threshold must be a number or one for each of the {values.shape[-1]} bits, "
            f"got shape {tuple(limit.shape)}"
        )
    if in_graph(values):
        return _pack_torch(values > limit, torch.int32)
    if torch.isnan(limit).any():
        raise ValueError("pack_bits: threshold must not be NaN")
    packed, has_nan = _above(values, limit.reshape(-1))
    if has_nan:
        bad = int(torch.isnan(values).sum())
        raise ValueError(f"pack_bits: z must not hold NaN, got {bad} of {values.numel()} values")
    if isinstance(threshold, float) and threshold == 0.5 and not packed.any() and bool((values < 0).any()):
        warn(
            "pack_bits: all bits are 0, because no value of z is above the threshold 0.5 and some are below 0; "
            "for signed values pass threshold=0"
        )
    return like(packed, z)


def unpack_bits(codes: Any, bits: int) -> Any:
    """Gives the bits of packed codes, one byte each: the inverse of `pack_bits`.

    codes: uint8 [..., W] with W = ceil(bits / 8), numpy or torch. Gives uint8 [..., bits] of 0 and 1, of the kind and
    on the device of `codes`. Raises TypeError for another type and ValueError for another width.

    >>> import numpy as np
    >>> unpack_bits(np.array([[160]], dtype=np.uint8), 4)
    array([[1, 0, 1, 0]], dtype=uint8)
    """
    packed = to_tensor(codes, "unpack_bits", "codes")
    bits = whole(bits, "unpack_bits", "bits", 1)
    if packed.dtype != torch.uint8:
        raise TypeError(f"unpack_bits: codes must be packed uint8, got {dtype_name(packed)}")
    if packed.ndim < 1 or packed.shape[-1] != code_bytes(bits):
        raise ValueError(
            f"unpack_bits: codes of {bits} bits must be [..., {code_bytes(bits)}] with bits >= 1, "
            f"got shape {tuple(packed.shape)}"
        )
    return like(_unpack(packed, bits), codes)


def from_signed(codes: Any) -> Any:
    """Gives packed codes from the signed bytes of sentence-transformers' "binary" embeddings: packed bits minus 128.

    codes: int8 [..., W], numpy or torch. Gives uint8 [..., W], a copy, of the kind and on the device of `codes`. Raises
    TypeError for another type ("ubinary" embeddings are packed codes already).

    >>> import numpy as np
    >>> signed = (np.packbits([[1, 0, 1, 0]], axis=1).astype(np.int16) - 128).astype(np.int8)
    >>> from_signed(signed)
    array([[160]], dtype=uint8)
    """
    signed = to_tensor(codes, "from_signed", "codes")
    if signed.dtype != torch.int8:
        raise TypeError(f"from_signed: codes must be int8 (packed bits minus 128), got {dtype_name(signed)}")
    return like(signed.view(torch.uint8) ^ 0x80, codes)


def to_signed(codes: Any) -> Any:
    """Gives the signed bytes of sentence-transformers' "binary" embeddings from packed codes: the inverse of
    `from_signed`.

    codes: uint8 [..., W], numpy or torch. Gives int8 [..., W], a copy, of the kind and on the device of `codes`. Raises
    TypeError for another type.

    >>> import numpy as np
    >>> to_signed(np.array([[160]], dtype=np.uint8))
    array([[32]], dtype=int8)
    """
    packed = to_tensor(codes, "to_signed", "codes")
    if packed.dtype != torch.uint8:
        raise TypeError(f"to_signed: codes must be packed uint8, got {dtype_name(packed)}")
    return like((packed ^ 0x80).view(torch.int8), codes)


def check_codes(codes: Tensor, bits: int, function: str, name: str = "codes") -> None:
    """Refuses what is not a [N, ceil(bits / 8)] uint8 tensor of packed codes with zero padding bits.

    Raises TypeError (type) or ValueError (shape, padding), naming `function` and `name`.
    """
    if codes.dtype != torch.uint8:
        hint = "; fasthash.codes.from_signed reads packed bits minus 128" if codes.dtype == torch.int8 else ""
        raise TypeError(f"{function}: {name} must be packed uint8 codes (see pack_bits), got {dtype_name(codes)}{hint}")
    width = code_bytes(bits)
    if codes.ndim != 2 or codes.shape[1] != width:
        raise ValueError(f"{function}: {name} of {bits} bits must be [N, {width}], got shape {tuple(codes.shape)}")
    if bits % 8:
        bad = (codes[:, -1] & (0xFF >> (bits % 8))) != 0
        if bad.any():
            raise ValueError(
                f"{function}: {name} must have zeros in the {8 * width - bits} padding bits after bit {bits}, "
                f"got others in {int(bad.sum())} of {len(codes)} rows"
            )


def _above(values: Tensor, limit: Tensor) -> tuple[Tensor, bool]:
    """The packed bits values [..., D] > limit [1 or D], and whether NaN is among the values."""
    if values.device.type == "cpu" and values.dtype not in _WITHOUT_NUMPY:
        return _above_in_blocks(values.numpy(), limit.numpy())
    bits = values > limit
    has_nan = values.is_floating_point() and values.numel() > 0 and bool(torch.isnan(values.amax()))
    if values.device.type == "cpu":
        return torch.from_numpy(np.packbits(bits.numpy(), axis=-1)), has_nan
    return _pack_torch(bits), has_nan


def _above_in_blocks(values: np.ndarray[Any, Any], limit: np.ndarray[Any, Any]) -> tuple[Tensor, bool]:
    """`_above` in blocks that a processor's cache holds, so that values are read from memory once."""
    packed = np.empty((*values.shape[:-1], code_bytes(values.shape[-1])), dtype=np.uint8)
    if not values.size:
        return torch.from_numpy(packed), False
    blocks, into = (values, packed) if values.ndim > 1 else (values[None], packed[None])
    step = max(1, BLOCK * len(blocks) // values.nbytes)
    has_nan = False
    with np.errstate(invalid="ignore"):
        for start in range(0, len(blocks), step):
            block = blocks[start : start + step]
            into[start : start + step] = np.packbits(block > limit, axis=-1)
            has_nan = has_nan or (values.dtype.kind == "f" and bool(np.isnan(block.max())))  # NaN wins
    return torch.from_numpy(packed), has_nan


def _unpack(codes: Tensor, bits: int) -> Tensor:
    """uint8 [..., W] -> uint8 [..., bits]."""
    if codes.device.type == "cpu" and not in_graph(codes):
        return torch.from_numpy(np.unpackbits(codes.numpy(), axis=-1, count=bits))
    return _unpack_torch(codes, bits)


def _pack_torch(bits: Tensor, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Bits [..., D] -> uint8 [..., ceil(D / 8)]. dtype: of the sums; ONNX Runtime has none of 8 bits."""
    size = int(bits.shape[-1])
    padded = torch.nn.functional.pad(bits.to(dtype), (0, -size % 8))
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=dtype, device=bits.device)
    groups: Tensor = padded.unflatten(-1, (code_bytes(size), 8))
    return (groups * weights).sum(-1, dtype=dtype).to(torch.uint8)


def _unpack_torch(codes: Tensor, bits: int) -> Tensor:
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=codes.device)
    return ((codes.unsqueeze(-1) >> shifts) & 1).flatten(-2)[..., :bits].contiguous()
