"""Searching an index: its parts, their results, devices. Nothing here reads or writes files of an index."""

from typing import TYPE_CHECKING

from fasthash._moved import moved_names

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
