"""What a GPU is expected to need: printed by gpu.sh beside each figure, so that a surprise is seen at once.

Reasoned from instruction counts and data sheets (docs/gpu.md), for an H100 with 3.35 TB/s of memory and 1.755 GHz. None
has been measured.
"""

from __future__ import annotations

H100 = "H100"
# (what, bits, queries): milliseconds at k = 10, over these codes.
CODES = {64: 1_000_000_000, 256: 200_000_000}
MILLISECONDS = {
    ("top-k", 64, 1): "2.65 to 2.9 (floor 2.39)",
    ("top-k", 64, 4): "at most 2.9",
    ("top-k", 64, 16): "at most 3.2",
    ("top-k", 64, 1024): "60 to 75",
    ("filter", 64, 16): "at most 3.5 with the filter",
    ("by class", 64, 1024): "60 to 75, as codes in no order",
    ("top-k", 256, 1): "2.1",
    ("top-k", 256, 1024): "28",
    ("small", 64, 1): "0.015",
}
KL = {(16_384, 256, 1): "7.5", (16_384, 256, 2): "1.5"}  # (rows, dimensions, p): milliseconds


def search(what: str, bits: int, codes: int, queries: int, k: int = 10) -> str:
    """What is expected of this search, in words; "" where nothing was worked out."""
    wanted = 1_000_000 if what == "small" else CODES.get(bits)
    words = MILLISECONDS.get((what, bits, queries), "")
    if not words or k != 10 or codes != wanted:
        return ""
    return f"expected on an {H100}: {words} ms"


def kl(rows: int, dims: int, p: int) -> str:
    """The same of the KL loss, forward and backward."""
    words = KL.get((rows, dims, p), "")
    return f"expected on an {H100}: {words} ms" if words else ""
