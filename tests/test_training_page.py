"""docs/training.md: its examples run, its commands parse, its options exist."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest

from fasthash.cli.parser import make_parser
from fasthash.train import Hasher, train

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "training.md").read_text(encoding="utf-8")


def test_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)
    assert len(blocks) == 7
    names: dict[str, object] = {"__name__": "page"}
    for source in blocks:
        exec(compile(source, "training.md", "exec"), names)
    assert (tmp_path / "runs" / "images" / "model.safetensors").is_file()
    assert len(names["rows"]) == 2  # type: ignore[arg-type]
    assert capsys.readouterr().out.count(",") == 2


def test_commands_parse() -> None:
    lines = re.findall(r"^(?:torchrun --nproc-per-node 4 -m )?fasthash (.*)$", PAGE, flags=re.M)
    assert len(lines) == 4
    for line in lines:
        make_parser().parse_args(shlex.split(line, comments=True))


def test_options_exist() -> None:
    table = PAGE.split("## Options")[1].split("##")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 11
    for function, hasher, options in rows:
        known = inspect.signature(train).parameters
        names = re.findall(r"`(\w+)`", function)
        assert set(names) <= set(known), names
        here = names if hasher == "same" else re.findall(r"`(\w+)`", hasher)
        assert set(here) <= set(inspect.signature(Hasher).parameters), here
        for option in re.findall(r"`(--[\w-]+)`", options):
            assert option in make_parser_options(), option


def make_parser_options() -> set[str]:
    commands = next(action for action in make_parser()._actions if action.dest == "COMMAND" or action.choices)
    return {option for action in commands.choices["train"]._actions for option in action.option_strings}  # type: ignore[index]
