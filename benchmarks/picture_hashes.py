"""Perceptual hashes of real pictures and of edited copies of them, for bench_pairs.py.

Pictures are those of tiny_imagenet_32 (32 x 32, JPEG). Each comes five times: as it is, made smaller and large again,
saved as JPEG of quality 40, cropped by a pixel on each side, and a fifth brighter. The hashes are those of imagehash.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance
from scipy.fft import dct

COPIES = 5
Codes = np.ndarray[Any, np.dtype[np.uint8]]


def edited(picture: Image.Image) -> Iterator[Image.Image]:
    """A picture and its copies."""
    width, height = picture.size
    yield picture
    yield picture.resize((24, 24)).resize((width, height))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    yield Image.open(file)
    yield picture.crop((1, 1, width - 1, height - 1))
    yield ImageEnhance.Brightness(picture).enhance(1.2)


def phash(grey: np.ndarray[Any, Any]) -> Codes:
    """imagehash.phash of grey pictures [N, 32, 32]: which of the 8 x 8 lowest frequencies are above their median."""
    low = dct(dct(grey.astype(np.float64), axis=1), axis=2)[:, :8, :8].reshape(-1, 64)
    return np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)


def dhash(grey: np.ndarray[Any, Any]) -> Codes:
    """imagehash.dhash of grey pictures [N, 8, 9]: where a pixel is brighter than the one before it."""
    return np.packbits((grey[:, :, 1:] > grey[:, :, :-1]).reshape(-1, 64), axis=1)


def picture_hashes(folder: Path, kind: str, pictures: int) -> Codes:
    """Hashes uint8 [pictures * COPIES, 8], picture after picture; kind: "pHash" or "dHash"."""
    stored = np.load(folder / "tiny_imagenet_32" / "dev_train.npz")
    data, offsets = stored["jpeg"], stored["offset"]
    size, hashes = ((32, 32), phash) if kind == "pHash" else ((9, 8), dhash)
    grey = np.empty((pictures * COPIES, size[1], size[0]), np.uint8)
    for number in range(pictures):
        picture = Image.open(io.BytesIO(data[offsets[number] : offsets[number + 1]].tobytes())).convert("RGB")
        for copy, one in enumerate(edited(picture)):
            grey[number * COPIES + copy] = one.convert("L").resize(size, Image.Resampling.LANCZOS)
    return hashes(grey)
