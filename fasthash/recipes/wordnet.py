"""Where WordNet's noun file is."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from fasthash.hierarchy import Hierarchy

# Debian's package wordnet-base, and what nltk.download("wordnet") leaves.
USUAL = ("/usr/share/wordnet/data.noun", "~/nltk_data/corpora/wordnet/data.noun")


def wordnet(given: str | PathLike[str] | None, data: Path) -> Hierarchy:
    """WordNet's nouns: from the file that was given, or data.noun beside the data or in the usual places.

    Raises FileNotFoundError where there is none. The synsets are those of WordNet 3.0.
    """
    places = [Path(given)] if given is not None else [data / "data.noun", *(Path(place) for place in USUAL)]
    for place in places:
        if place.expanduser().is_file():
            return Hierarchy.from_wordnet(place.expanduser())
    looked = ", ".join(map(str, places))
    raise FileNotFoundError(
        f"recipe: needs WordNet 3.0's data.noun, looked for {looked}: give it as wordnet= (--wordnet FILE)"
    )
