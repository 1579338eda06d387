"""Progress as lines of text, where no bar can be drawn: in a log file, or under a scheduler."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

SECONDS = 10.0  # between two lines


class ProgressLines:
    """Progress of the training loop without tqdm: a line on stderr every 10 seconds, and one at the end.

    total: steps of all epochs; initial: those that are done already.
    """

    def __init__(self, total: int, initial: int) -> None:
        self.total, self.step, self.words = total, initial, ""
        self.start = self.last = time.monotonic()
        self.shown = -1

    def update(self) -> None:
        """One more step is done."""
        self.step += 1
        if time.monotonic() - self.last >= SECONDS:
            self._show()

    def set_postfix(self, values: dict[str, Any]) -> None:
        """Loss and score of the last epoch."""
        self.words = "".join(f", {name} {value}" for name, value in values.items())

    def _show(self) -> None:
        self.last, self.shown = time.monotonic(), self.step
        sys.stderr.write(f"train: step {self.step} of {self.total}{self.words}, {self.last - self.start:.0f} s\n")
        sys.stderr.flush()

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None and self.shown != self.step:
            self._show()
