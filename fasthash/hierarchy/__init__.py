"""Class hierarchies: distances between labels from the height of their lowest common subsumer."""

from fasthash.hierarchy.graph import Hierarchy
from fasthash.hierarchy.names import WHOLE_NUMBER, Edge, Name

__all__ = ["WHOLE_NUMBER", "Edge", "Hierarchy", "Name"]
