"""Class hierarchies: distances between labels from the height of their lowest common subsumer."""

from fasthash.hierarchy.graph import Hierarchy
from fasthash.hierarchy.header import ORDERS
from fasthash.hierarchy.names import WHOLE_NUMBER, Edge, Name
from fasthash.hierarchy.telling import telling_distances

__all__ = ["ORDERS", "WHOLE_NUMBER", "Edge", "Hierarchy", "Name", "telling_distances"]
