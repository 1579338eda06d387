"""The command line: one module for each group of commands, imported only when one of them runs."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from fasthash.cli.parser import UserError, make_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit status: 0, 2 for input that cannot be used, 130 for Ctrl-C.

    What cannot be used is told in one line on stderr, `fasthash: error: ...`, and so is each warning,
    `fasthash: warning: ...`. SystemExit is raised for --help only.
    """
    # GNU OpenMP's threads spin for milliseconds where they wait for one another, which costs a busy machine most of its
    # time: training took 40 s instead of 3. This many turns, some microseconds, cost a quiet one nothing. It must be
    # said before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            arguments = make_parser().parse_args(argv)
            module, function = arguments.run.split(":")
            getattr(import_module(f"fasthash.cli.{module}"), function)(arguments)
            sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except MemoryError as error:
        return _refuse(f"not enough memory: {error}" if str(error) else "not enough memory")
    except (UserError, ValueError, TypeError, FloatingPointError) as error:  # the library says clearly what is wrong
        return _refuse(str(error))


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"fasthash: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _refuse(message: str) -> int:
    print(f"fasthash: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
