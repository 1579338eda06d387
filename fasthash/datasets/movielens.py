"""MovieLens as GroupLens distributes it: ratings of films by users, titles, genres and tags."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash.datasets.files import existing

NO_GENRES = "(no genres listed)"


class MovieLens(NamedTuple):
    """Ratings, row i of users, films, ratings and times, and what is known of the films, row j of the others."""

    users: NDArray[np.int64]  # [R], numbered from 0 in the order of their ids
    films: NDArray[np.int64]  # [R], rows of film_ids
    ratings: NDArray[np.float32]  # [R], 0.5 to 5
    times: NDArray[np.int64]  # [R], seconds since 1970
    user_ids: NDArray[np.int64]  # [U], ascending: the ids in the files
    film_ids: NDArray[np.int64]  # [I], ascending: films without a rating too
    titles: list[str]  # [I]
    genres: list[tuple[str, ...]]  # [I]
    tags: list[tuple[str, ...]]  # [I], what users wrote, in the order of the file; empty in ml-1m


def movielens(folder: str | PathLike[str]) -> MovieLens:
    """Ratings and films from a folder with the files of a download.

    - ratings.csv, movies.csv and tags.csv: ml-latest-small, ml-latest, ml-20m, ml-25m, ml-32m;
    - ratings.dat, movies.dat and, in ml-10m, tags.dat: ml-1m, ml-10m.

    Harper & Konstan, "The MovieLens Datasets: History and Context" (2015). Its licence allows research, and no
    commercial use without permission: read the README of the download. Nothing of it is in this package.

    Raises FileNotFoundError, naming what is missing, and ValueError, naming file and line, for a line that is not of
    the format, and for a rating or a tag of a film that is not listed.
    """
    root = Path(folder)
    kind = "dat" if not (root / "ratings.csv").exists() and (root / "ratings.dat").exists() else "csv"
    films: dict[int, tuple[str, tuple[str, ...]]] = {}
    for where, (film, title, genres) in _rows(root / f"movies.{kind}", 3):
        films[_whole(film, where)] = title, tuple(g for g in genres.split("|") if g not in ("", NO_GENRES))
    film_ids = np.array(sorted(films), dtype=np.int64)
    number = {film: row for row, film in enumerate(film_ids.tolist())}
    columns: tuple[list[int], list[int], list[float], list[int]] = [], [], [], []
    for where, (user, film, rating, time) in _rows(root / f"ratings.{kind}", 4):
        columns[0].append(_whole(user, where))
        columns[1].append(_row_of(film, number, where))
        columns[2].append(_rating(rating, where))
        columns[3].append(_whole(time, where))
    tags: list[list[str]] = [[] for _ in number]
    if (root / f"tags.{kind}").exists():
        for where, (_, film, tag, _) in _rows(root / f"tags.{kind}", 4):
            tags[_row_of(film, number, where)].append(tag)
    user_ids, users = np.unique(np.array(columns[0], dtype=np.int64), return_inverse=True)
    return MovieLens(
        users.astype(np.int64),
        np.array(columns[1], dtype=np.int64),
        np.array(columns[2], dtype=np.float32),
        np.array(columns[3], dtype=np.int64),
        user_ids,
        film_ids,
        [films[film][0] for film in film_ids.tolist()],
        [films[film][1] for film in film_ids.tolist()],
        [tuple(each) for each in tags],
    )


def _rows(path: Path, parts: int) -> Iterator[tuple[str, list[str]]]:
    """The rows of a .csv file with a header, or of a .dat file, each with where it is, for messages."""
    found = existing(path, "movielens")
    if path.suffix == ".csv":
        with found.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            next(reader, None)
            for row in reader:
                yield _checked(row, parts, f"{path}, line {reader.line_num}")
        return
    with found.open(encoding="utf-8" if _is_utf8(found) else "latin-1", newline="\n") as file:  # titles of ml-1m
        for line, text in enumerate(file, 1):
            yield _checked(text.rstrip("\r\n").split("::"), parts, f"{path}, line {line}")


def _is_utf8(path: Path) -> bool:
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _checked(row: list[str], parts: int, where: str) -> tuple[str, list[str]]:
    if len(row) != parts:
        raise ValueError(f"movielens: {where}: must have {parts} columns, got {len(row)}")
    return where, row


def _whole(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"movielens: {where}: must be an integer, got {text!r}") from None


def _rating(text: str, where: str) -> float:
    try:
        rating = float(text)
    except ValueError:
        rating = -1.0
    if not 0 <= rating <= 5:
        raise ValueError(f"movielens: {where}: a rating must be a number between 0 and 5, got {text!r}")
    return rating


def _row_of(film: str, number: dict[int, int], where: str) -> int:
    row = number.get(_whole(film, where))
    if row is None:
        raise ValueError(f"movielens: {where}: film {film} is not among the {len(number)} of the file of movies")
    return row
