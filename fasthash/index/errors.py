"""The error that an index folder is refused with."""


class IndexFolderError(ValueError):
    """The folder of an index cannot be used: it is damaged, not an index, of another version, read-only or locked."""
