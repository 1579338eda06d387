"""The command line: one module for each group of commands, imported only when one of them runs."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from fasthash._warnings import FasthashWarning
from fasthash.cli.output import ClosedOutput, complain, finish, open_missing
from fasthash.cli.parser import UserError, make_parser

_OPTIONS = "format|column|id_column|label_column|bits|ids"  # arguments of the library that commands have too


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit status: 0, 2 for input that cannot be used, 130 for Ctrl-C.

    What cannot be used is told in one line on stderr, `fasthash: error: ...`. SystemExit is raised for --help only.
    A closed stdout (`| head`, `>&-`) ends a command that only prints, with status 0. It does not stop one that changes
    or writes files: its status says whether that is done.
    """
    # GNU OpenMP's threads spin for milliseconds where they wait for one another, which costs a busy machine most of its
    # time: training took 40 s instead of 3. This many turns, some microseconds, cost a quiet one nothing. It must be
    # said before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    open_missing()
    arguments = None
    try:
        arguments = make_parser().parse_args(argv)
        module, function = arguments.run.split(":")
        with warnings.catch_warnings():
            warnings.simplefilter("always", FasthashWarning)
            warnings.showwarning = partial(_show, warnings.showwarning)
            getattr(import_module(f"fasthash.cli.{module}"), function)(arguments)
        finish()
        return 0
    except SystemExit:  # of --help and --version
        try:
            finish()
        except UserError as error:
            return _refuse(str(error))
        raise
    except KeyboardInterrupt:
        if told := _how_to_go_on(arguments):
            complain(f"fasthash: interrupted: {told}")
        return 130
    except ClosedOutput:
        return 0
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except MemoryError as error:
        return _refuse(f"not enough memory: {error}" if str(error) else "not enough memory")
    except (UserError, ValueError, TypeError, FloatingPointError) as error:  # the library says clearly what is wrong
        return _refuse(str(error))


def _how_to_go_on(arguments: Any) -> str:
    """What to do after Ctrl-C in a command that can continue; "" for other commands."""
    run = getattr(arguments, "run", "")
    if run == "learn:train":
        if arguments.run_dir is None:
            return "nothing was saved; with --run-dir FOLDER the same command continues after the last complete epoch"
        return f"run the same command again: it continues after the last complete epoch in {arguments.run_dir}"
    if run == "recipe:recipe":
        return f"run the same command again: it continues after the last complete epoch in {arguments.out}"
    if run == "learn:encode" and (arguments.module is not None or os.path.isdir(arguments.features)):
        return f"run the same command again: it continues with {arguments.out}"
    return ""


def _show(usual: Callable[..., None], message: Warning | str, category: Any, filename: str, *rest: Any) -> None:
    """Shows a warning of this package as one line."""
    if not issubclass(category, FasthashWarning):
        usual(message, category, filename, *rest)
        return
    complain(f"fasthash: warning: {_line(str(message))}")


def _refuse(message: str) -> int:
    complain(f"fasthash: error: {_line(message)}")
    return 2


def _line(message: str) -> str:
    """A message of the library in one line, with options as they are typed."""
    return " ".join(re.sub(rf"\b({_OPTIONS})=(?=([^\s,;)])?)", _flag, message).split())


def _flag(option: re.Match[str]) -> str:
    """An argument of the library as it is typed: "id_column='key'" -> "--id-column 'key'"."""
    return f"--{option[1].replace('_', '-')}{' ' if option[2] else ''}"
