"""What tells one run of Hasher from another: its settings, and checksums of hierarchy and data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fasthash.train.checksum import fingerprint
from fasthash.train.features import Features
from fasthash.train.settings import NOT_SAVED
from fasthash.train.supervision import Targets
from fasthash.train.validation import HeldOut


def run_config(
    settings: Mapping[str, Any], features: Features, targets: Targets, held_out: HeldOut | None
) -> dict[str, Any]:
    """The config of a run folder. settings: as given. The features were read with their checksums."""
    hierarchy = settings["hierarchy"]
    data = {
        "shape": list(features.rows.shape),
        "X": features.checksum,
        "y": _checksum(targets, features),
        "hierarchy": fingerprint(json.dumps(None if hierarchy is None else hierarchy.to_dict())),
    }
    if held_out is not None:
        data["validation_X"] = held_out.features.checksum
        data["validation_y"] = _checksum(held_out.targets, held_out.features)
    return {"hasher": {name: value for name, value in settings.items() if name not in NOT_SAVED}, "data": data}


def _checksum(targets: Targets, features: Features) -> str | None:
    """None where the features are the targets."""
    return None if targets.values is features.rows else fingerprint(targets.values, json.dumps(targets.classes))
