"""The allocator's settings: asked for once, never against the user's will."""

import json
import platform
import subprocess
import sys

import pytest

from vedere.train import allocator


@pytest.fixture
def on_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))


@pytest.mark.usefixtures("on_glibc")
def test_all_settings_are_wanted_by_a_plain_process() -> None:
    assert allocator.wanted({"HOME": "x"}) == allocator.SETTINGS


@pytest.mark.usefixtures("on_glibc")
@pytest.mark.parametrize("name", [*allocator.SETTINGS, allocator.OPT_OUT])
def test_what_the_user_set_is_left_alone(name: str) -> None:
    assert allocator.wanted({name: "1"}) == {}


@pytest.mark.parametrize(("system", "libc"), [("Darwin", ""), ("Windows", ""), ("Linux", "musl")])
def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch, system: str, libc: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    assert allocator.wanted({}) == {}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings exist in glibc only")
def test_the_process_is_replaced_once_and_keeps_its_arguments() -> None:
    code = (
        "import os, sys, json; from vedere.train.allocator import restart_with_settings as r; r();"
        "print(json.dumps([sys.argv[1:], os.environ['MALLOC_MMAP_MAX_'], os.environ['PID'] == str(os.getpid())]))"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    shell = 'export PID=$$; exec "$0" -c "$1" one "two words"'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert json.loads(done.stdout) == [["one", "two words"], "0", True], done.stderr
