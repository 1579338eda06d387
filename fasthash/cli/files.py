"""Files in and out: inputs are checked as they are read, names of outputs before long work."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._arrays import dtype_name
from fasthash._labels import label_array
from fasthash.cli.output import show
from fasthash.cli.parser import UserError
from fasthash.hierarchy import WHOLE_NUMBER, Hierarchy, telling_distances

ROWS = 1 << 14  # rows that are read at once where an array may be larger than memory


def read_npy(path: str) -> NDArray[Any]:
    """A .npy file, mapped into memory, without unpickling anything."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not a .npy file") from None
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, EOFError) as error:
        why = "it is of another format" if "pickle" in str(error) else error  # numpy's advice is to unpickle it
        raise UserError(f"{path}: not a whole .npy file of numbers ({why})") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise UserError(f"{path}: an .npz archive, must be a .npy file")
    return array


def read_features(path: str) -> NDArray[Any]:
    """Embeddings: floating point [N, F], N and F at least 1, without NaN or infinity."""
    features = read_npy(path)
    if features.dtype.kind != "f":
        raise UserError(f"{path}: features must be floating point, got {dtype_name(features)}")
    if features.ndim != 2 or 0 in features.shape:
        raise UserError(f"{path}: features must be [rows, columns], neither of them 0, got shape {features.shape}")
    check_finite(features, path)
    return features


def check_finite(features: NDArray[Any], path: str) -> None:
    """Refuses NaN and infinity, telling the first row that has one."""
    for start in range(0, len(features), ROWS):
        bad = ~np.isfinite(features[start : start + ROWS]).all(axis=1)
        if bad.any():
            raise UserError(f"{path}: must be finite, got NaN or infinity in row {start + int(bad.argmax())}")


def read_codes(path: str, bits: int | None = None) -> tuple[NDArray[np.uint8], int]:
    """Packed codes uint8 [N, W] and their bits: `bits`, or 8 W."""
    codes = read_npy(path)
    if codes.dtype != np.uint8:
        raise UserError(f"{path}: codes must be packed uint8, got {dtype_name(codes)}")
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise UserError(f"{path}: codes must be [rows, bytes of a code], got shape {codes.shape}")
    if bits is None:
        return codes, 8 * codes.shape[1]
    if not 8 * codes.shape[1] - 8 < bits <= 8 * codes.shape[1]:
        raise UserError(f"{path}: codes of {bits} bits have {-(-bits // 8)} bytes, got {codes.shape[1]} a row")
    return codes, bits


def read_ids(path: str) -> NDArray[Any]:
    """Ids: integers [N]."""
    ids = read_npy(path)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise UserError(f"{path}: ids must be integers [N], got {dtype_name(ids)} of shape {ids.shape}")
    return ids


def read_labels(path: str, rows: int, items: str) -> NDArray[Any]:
    """One label for each of the `rows` of `items`: integers or text; lines of whole numbers only are integers."""
    if path.endswith(".npy"):
        array = read_npy(path)
        if array.dtype.kind not in "biuU" or array.ndim not in (1, 2) or array.shape[1:] not in ((), (1,)):
            raise UserError(
                f"{path}: labels must be integers or text [N], got {dtype_name(array)} of shape {array.shape}"
            )
        try:
            labels = label_array(array, path, "labels")
        except ValueError as error:  # beyond int64
            raise UserError(str(error)) from None
    else:
        lines = _read_text(path).splitlines()
        blank = next((number for number, line in enumerate(lines, 1) if not line.strip()), None)
        if blank is not None:
            raise UserError(f"{path}: line {blank} is empty, must be a label")
        labels = _as_numbers(np.array([line.strip() for line in lines], dtype=np.str_))
    if len(labels) != rows:
        raise UserError(f"{path}: {items} has {rows} rows, which need as many labels, got {len(labels)}")
    return labels


def read_hierarchy(path: str, order: str | None = None) -> Hierarchy:
    """A hierarchy from a file of edges, whose lines have the order of its header or `order`, or of a .json file."""
    try:
        return Hierarchy.from_file(path, order=order)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file") from None
    except (ValueError, TypeError) as error:
        raise UserError(_order_as_typed(str(error) if path in str(error) else f"{path}: {error}")) from None


def class_distances(labels: NDArray[Any], hierarchy: Hierarchy, path: str) -> NDArray[np.float64]:
    """Distances between the distinct labels, ascending; refuses a hierarchy that does not tell them apart."""
    try:
        return telling_distances(hierarchy, np.unique(labels).tolist(), path)
    except ValueError as error:
        raise UserError(_order_as_typed(str(error))) from None


def _order_as_typed(message: str) -> str:
    return message.replace("order=", "--hierarchy-order ").replace(" order is for", " --hierarchy-order is for")


def fit_to_hierarchy(labels: NDArray[Any], hierarchy: Hierarchy, path: str) -> NDArray[Any]:
    """The labels, as text or as numbers where only that is in the hierarchy; refuses the first that is not in it."""
    if not any(label in hierarchy for label in np.unique(labels).tolist()):
        other = _as_numbers(labels) if labels.dtype.kind == "U" else labels.astype(np.str_)
        if any(label in hierarchy for label in np.unique(other).tolist()):
            labels = other
    for label in np.unique(labels).tolist():
        if label not in hierarchy:
            row = int((labels == label).argmax())
            raise UserError(f"{path}: label {label!r} (row {row}) is not in the hierarchy")
    return labels


def output_file(path: str) -> Path:
    """The file of that name, which can be written: said before long work, not after it."""
    file = Path(path)
    if not path:
        raise UserError("the name of the file to write must not be empty")
    if file.is_dir():
        raise UserError(f"{path}: a folder, must be the name of a file")
    if file.exists() and not file.is_file():  # /dev/null, say: a file would take its place
        raise UserError(f"{path}: cannot be written, it is there and is not a regular file")
    if not file.parent.is_dir():
        raise UserError(f"{path}: cannot be written, there is no folder {file.parent}")
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"{path}: cannot be written, the folder {file.parent} is read-only")
    return file


def print_json(result: Any) -> None:
    """Prints one JSON document; NaN and infinity, which JSON does not have, are null."""
    show(to_json(result))


def to_json(result: Any) -> str:
    return json.dumps(_plain(result), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _as_numbers(labels: NDArray[Any]) -> NDArray[Any]:
    """Text labels as integers, where all are whole numbers as Python writes them: 007 is a name."""
    if not all(WHOLE_NUMBER.fullmatch(label) for label in labels.tolist()):
        return labels
    try:
        return labels.astype(np.int64)
    except OverflowError:
        return labels


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file") from None
