"""Standard output: what a command was asked for, and what it reports when its work is done."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable

from fasthash.cli.parser import UserError


class ClosedOutput(Exception):
    """The reader of our standard output (head, say) has seen enough."""


def show(*lines: str) -> None:
    """Prints the answer of a command."""
    show_lines(lines)


def show_lines(lines: Iterable[str]) -> None:
    """Prints the answer of a command, line by line.

    Raises ClosedOutput where the reader has gone, UserError where standard output cannot be written.
    """
    try:
        for line in lines:
            _write(line)
        sys.stdout.flush()
    except BrokenPipeError:
        silence()
        raise ClosedOutput from None
    except OSError as error:
        silence()
        raise UserError(f"standard output: cannot be written ({error.strerror})") from None


def report(line: str) -> None:
    """Prints what a command has done, once it is durable: where it cannot be printed, the work is still a success."""
    try:
        show(line)
    except ClosedOutput:
        pass
    except UserError as error:
        complain(f"fasthash: the work is done, but its report could not be written: {error}")


def complain(line: str) -> None:
    """Prints a line to standard error, where somebody reads it."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def finish() -> None:
    """Prints what is left in the buffer, so that nothing is left to complain of at exit."""
    with contextlib.suppress(ClosedOutput):
        show()


def silence() -> None:
    """Sends the rest of standard output nowhere, what is in its buffer too."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file, as tests have it
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def open_missing() -> None:
    """Opens /dev/null for standard streams that were closed when the process began.

    Python has None in their place, and the next file that is opened would get their number.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _write(line: str) -> None:
    """Writes a line; characters that the terminal cannot show (of a file's name, say) become escapes."""
    try:
        sys.stdout.write(f"{line}\n")
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding
        sys.stdout.write(f"{line.encode(encoding, 'backslashreplace').decode(encoding)}\n")
