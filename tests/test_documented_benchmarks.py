"""The benchmark commands of README and docs are complete: each is accepted by its script's options, which then stop."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
QUOTED = re.compile(r"`python\s+benchmarks/(\w+)\.py([^`]*)`")
LISTED = re.compile(r"^python benchmarks/(\w+)\.py(.*)$", re.MULTILINE)


class Accepted(Exception):
    """The options were."""


def commands() -> list[tuple[str, str]]:
    """(script, options) of every command, line breaks as blanks."""
    found = set()
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text("utf-8")
        for script, options in [*QUOTED.findall(text), *LISTED.findall(text)]:
            found.add((script, " ".join(options.split("#")[0].split())))
    return sorted(found)


def test_there_are_some() -> None:
    assert len(commands()) > 15


@pytest.mark.parametrize(("script", "options"), commands(), ids=lambda text: text or "plain")
def test_a_documented_command_is_accepted(script: str, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        raise Accepted

    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module(script)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr("sys.argv", [f"{script}.py", *shlex.split(options)])
    with pytest.raises(Accepted):
        module.main()
