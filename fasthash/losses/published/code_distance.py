"""Bounds of coding theory: how far apart the codes of a number of classes can be."""

from __future__ import annotations

from fasthash._arguments import MAX_BITS, whole


def code_distance_bounds(bits: int, words: int) -> tuple[int, int]:
    """Bounds (lower, upper) on the largest minimum Hamming distance that `words` codes of `bits` bits can have.

    lower, guaranteed to exist (Gilbert-Varshamov): the largest d with words x sum_{i<d} C(bits, i) <= 2^bits.
    upper, impossible above: the smaller of two. Hamming: the largest d with words x sum_{i<=(d-1)/2} C(bits, i) <=
    2^bits. Plotkin: the mean distance of all pairs is at most bits x floor(words/2) x ceil(words/2) / (number of
    pairs), rounded down. More words than codes: (0, 0), since two words are one code then. One word has no pair: (bits,
    bits).

    Exact integer arithmetic. bits: 1 to 65,536; words >= 1. Raises TypeError or ValueError for others. Source: textbook
    bounds (MacWilliams & Sloane, "The theory of error-correcting codes", 1977), restated.

    >>> code_distance_bounds(64, 150)
    (22, 32)
    """
    bits = whole(bits, "code_distance_bounds", "bits", 1, MAX_BITS)
    words = whole(words, "code_distance_bounds", "words", 1)
    if words == 1:
        return bits, bits
    if words > 1 << bits:
        return 0, 0
    radius = _largest_radius(bits, words)
    hamming = min(2 * radius + 2, bits)  # d and d - 1 have the same (d - 1) // 2 for even d
    plotkin = bits * (words // 2) * ((words + 1) // 2) * 2 // (words * (words - 1))
    return min(radius + 1, bits), min(hamming, plotkin)


def _largest_radius(bits: int, words: int) -> int:
    """The largest r >= 0 with words x sum_{i<=r} C(bits, i) <= 2^bits; words is at most 2^bits."""
    most = (1 << bits) // words
    ball, shell, radius = 1, 1, 0
    while True:
        shell = shell * (bits - radius) // (radius + 1)
        ball += shell
        if ball > most:
            return radius
        radius += 1
