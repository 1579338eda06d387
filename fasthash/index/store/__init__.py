"""The files of an index (docs/index-format.md): reading and writing them. Nothing here searches."""
