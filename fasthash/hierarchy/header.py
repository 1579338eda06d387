"""Header lines of edge files: which words name the two columns, and which first lines are no edge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fasthash.hierarchy.names import WHOLE_NUMBER

ORDERS = ("parent child", "child parent")

PARENT_WORDS = (
    "parent", "hypernym", "superclass", "supercategory", "supertype", "superordinate", "broader", "general", "ancestor",
    "coarse",
)  # fmt: skip
CHILD_WORDS = (
    "child", "children", "hyponym", "subclass", "subcategory", "subtype", "subordinate", "narrower", "specific",
    "descendant", "fine",
)  # fmt: skip
# Words for the class itself: beside a word for the parent they name the child, beside one for the child the parent.
CLASS_WORDS = (
    "class", "category", "concept", "id", "item", "label", "leaf", "name", "node", "synset", "term", "type", "wnid",
)  # fmt: skip
# Words that head columns and do not say which of the two is the parent.
OTHER_WORDS = (
    "begin", "description", "destination", "dst", "end", "entity", "from", "gloss", "head", "index", "key", "object",
    "source", "src", "start", "subject", "tail", "target", "text", "title", "to", "value", "word", "words",
)  # fmt: skip
KNOWN = (
    "parent/child, hypernym/hyponym, superclass/subclass, supercategory/subcategory, broader/narrower, coarse/fine, "
    "ancestor/descendant"
)

_WORD = "word"
_ENDING = "(?:s|es|id|ids|name|names|class|category|code|concept|label|node|term|type|wnid)?"
_ROLES = {
    role: re.compile(f"(?:{'|'.join(words)}){_ENDING}")
    for role, words in (
        ("parent", PARENT_WORDS),
        ("child", CHILD_WORDS),
        ("class", CLASS_WORDS),
        ("other", OTHER_WORDS),
    )
}


def header_order(first: Sequence[str], others: Iterable[Sequence[str]]) -> str | None:
    """The order of columns that a first line of two words tells, "parent child" or "child parent"; None: no header.

    Words count in any case, with an ending such as "_id" or " name". A word for the class beside one for its parent
    ("class,superclass") is the child, unless another line has it as a name.

    >>> header_order(["Superclass", "Class"], [["animal", "dog"]])
    'parent child'
    """
    roles = [_role(word) for word in first]
    if sorted(map(str, roles)) == ["child", "parent"]:
        return f"{roles[0]} {roles[1]}"
    if "class" in roles and ("parent" in roles or "child" in roles) and not _mentioned(first, others):
        told = next(role for role in roles if role != "class")
        other = "child" if told == "parent" else "parent"
        return " ".join(other if role == "class" else str(role) for role in roles)
    return None


def header_doubt(first: Sequence[str], others: Sequence[Sequence[str]]) -> str | None:
    """Whether a first line without a known order is a header: "sure", "maybe", or None for an edge.

    "sure": both words are known for columns, or all other lines have numbers where it has none (n02084071 is one).
    "maybe": one word is known for columns, or other lines share names with one another and none with it. A line that
    has a name of another line, or a number where the next line has one, is an edge.

    >>> header_doubt(["source", "target"], [["a", "b"]]), header_doubt(["over", "under"], [["1", "2"], ["1", "3"]])
    ('sure', 'sure')
    >>> header_doubt(["over", "under"], [["animal", "dog"], ["animal", "cat"]])
    'maybe'
    """
    if not others or _mentioned(first, others):
        return None
    roles = [_role(word) for word in first]
    if all(roles):
        return "sure"
    for column, word in enumerate(first):
        shapes = {_shape(names[column]) for names in others}
        if len(shapes) == 1 and shapes != {_WORD} and _shape(word) not in shapes:
            return "sure"
    if any(_shape(word) == _shape(name) != _WORD for word, name in zip(first, others[0], strict=True)):
        return None
    names = [name for pair in set(map(tuple, others)) for name in pair]
    return "maybe" if any(roles) or len(set(names)) < len(names) else None


def _role(word: str) -> str | None:
    """What a column of this name holds: "parent", "child", "class" (one of the two), "other" (unknown), or None."""
    parts = re.split(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])", word.strip())
    plain = "".join(parts).lower()
    return next((role for role, pattern in _ROLES.items() if pattern.fullmatch(plain)), None)


def _mentioned(first: Sequence[str], others: Iterable[Sequence[str]]) -> bool:
    return any(word in names for names in others for word in first)


def _shape(name: str) -> str:
    """A name with "0" for every run of digits, and one shape for all names without any: n02084071 -> n0, -7 -> 0."""
    if WHOLE_NUMBER.fullmatch(name):
        return "0"
    shape = re.sub(r"[0-9]+", "0", name)
    return shape if "0" in shape else _WORD
