"""One picture from its file, as a network takes it; what is wrong with it is told by name."""

from __future__ import annotations

import contextlib
import warnings
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasthash._arguments import whole

MAX_PIXELS = 100_000_000  # 300 MB in memory; Pillow itself refuses 1.8 times as many as a likely attack
_FRAMES_OF_ONE = ("MPO",)  # a camera's picture with a preview or another view behind it


class ImageError(ValueError):
    """A picture that cannot be used; the text names the file and says why."""


def pillow() -> Any:
    """Pillow's module Image. Raises ImportError, saying what to install."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("images: pictures need Pillow: pip install 'fasthash[images]'") from None
    return Image


def read_image(path: str | PathLike[str], size: int = 224) -> Tensor:
    """The middle square of a picture, scaled to uint8 [3, size, size], RGB.

    The shorter side is scaled to `size`. Rotation that a camera has noted is applied. Greyscale, 16-bit, CMYK, palette
    and transparent pictures (on white) become RGB. Raises ImageError, naming the file, for one that is broken, cut
    short, animated, of more than 100 million pixels or of floating-point values; ImportError without Pillow.

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "grey.png"
    >>> Image.new("L", (30, 20), 7).save(path)
    >>> read_image(path, 8).shape, int(read_image(path, 8).max())
    (torch.Size([3, 8, 8]), 7)
    """
    size = whole(size, "read_image", "size", 1, 4096)
    image_module = pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes that are checked here
            with image_module.open(path) as image:
                return _square(_rgb(_checked(image, path, size), path), size)
    except ImageError:
        raise
    except (image_module.UnidentifiedImageError, FileNotFoundError) as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else "not a picture, or broken"
        raise ImageError(f"{path}: {why}") from None
    except image_module.DecompressionBombError:
        raise ImageError(f"{path}: has more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # of Pillow's decoders, of many kinds
        raise ImageError(f"{path}: broken ({type(error).__name__}: {str(error).strip()[:100]})") from None


def _checked(image: Any, path: Any, size: int) -> Any:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{path}: has {width} x {height} pixels, more than {MAX_PIXELS:,}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in _FRAMES_OF_ONE:
        raise ImageError(f"{path}: has {frames} frames or pages, must be one picture")
    if image.format == "JPEG":
        image.draft("RGB", (2 * size, 2 * size))  # decodes a large picture at a half, quarter or eighth
    image.load()
    return image


def _rgb(image: Any, path: Any) -> Any:
    """RGB of 8 bits."""
    from PIL import Image, ImageOps

    if image.mode == "F":
        raise ImageError(f"{path}: holds floating-point values, must be of 8 or 16 bits")
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise ImageError(f"{path}: holds 32-bit values, must be of 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, whose high byte is what 8 bits would be; Pillow would cut them off
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8), "L")
    with contextlib.suppress(Exception):  # broken metadata
        image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _square(image: Any, size: int) -> Tensor:
    from PIL import Image

    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    small = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()
