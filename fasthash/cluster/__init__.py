"""Beyond one machine, on Ray."""

from fasthash.cluster.encode import encode

__all__ = ["encode"]
