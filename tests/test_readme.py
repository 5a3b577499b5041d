"""README and docs are run: Python blocks whole, bash blocks line by line, commands of sh blocks looked up.

The blocks of the README need the weights of vedere-mini and its language model, as a user does.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VEDERE = [sys.executable, "-c", "import sys; from vedere.cli import main; sys.exit(main())"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def all_blocks(language: str) -> list[tuple[str, str]]:
    return [
        (f"{page.relative_to(ROOT).as_posix()}-{number}", block)
        for page in PAGES
        for number, block in enumerate(blocks(page, language), 1)
    ]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "NO_COLOR": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
    return done


def lines(language: str) -> list[str]:
    return [line for _, block in all_blocks(language) for line in block.splitlines() if line and line[0] != "#"]


@pytest.mark.parametrize(("place", "block"), all_blocks("python"), ids=[place for place, _ in all_blocks("python")])
def test_python_blocks_run(place, block):
    done = run([sys.executable, "-c", block])
    assert len(done.stdout.split("\n")) >= block.count("print(")


@pytest.mark.parametrize("line", lines("bash"))
def test_bash_lines_run_and_say_something(line):
    program, *arguments = shlex.split(line)
    assert program == "vedere", "bash blocks hold vedere commands; everything else goes into an sh block"
    done = run([*VEDERE, *arguments])
    assert done.stdout.strip()
    if "--json" in arguments:
        assert isinstance(json.loads(done.stdout), dict)


@pytest.mark.parametrize("line", lines("sh"))
def test_commands_of_sh_blocks_exist(line):
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    else:
        assert words[0] == "vedere"
        shown = run([*VEDERE, words[1], "--help"]).stdout
        assert words[1] in shown


def test_the_makefile_is_described():
    makefile, readme = ((ROOT / name).read_text("utf-8") for name in ("Makefile", "README.md"))
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(re.findall(r"^\| `make ([\w-]+)` \|", readme, re.MULTILINE)) == set(phony.split())
    assert {"demo", "test", "check", "soak"} <= set(phony.split())


def test_the_constraints_cover_every_installed_package_that_vedere_asks_for():
    """`make venv` installs what pyproject.toml asks for, transitively; every one of these has its line."""
    from importlib import metadata

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pinned = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pinned[canonicalize_name(name)] = version
    wanted, seen = [Requirement("vedere[train,corpus,dev]")], set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if (name, *sorted(requirement.extras)) in seen:
            continue
        seen.add((name, *sorted(requirement.extras)))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        for text in found.requires or []:
            inner = Requirement(text)
            if inner.marker is None or any(
                inner.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                wanted.append(inner)
        if name != "vedere":
            # CUDA builds of torch bring packages that torch itself pins.
            assert name in pinned or name.startswith(("nvidia-", "cuda-", "triton")), (
                f"{name} is not in constraints.txt"
            )
    assert len(seen) > 50
    assert pinned["torch"].count("+") == 0
    assert pinned["pillow"].startswith("12.")
