"""The allocator: freed memory stays while it is told so, goes back when it is not, and a user's choice is respected."""

import ctypes
import platform

import pytest
import torch

from vedere.infer.allocator import OPT_OUT, keep_freed_memory

GLIBC = platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(not GLIBC, reason="only glibc has these settings")
def test_freed_memory_stays_until_it_is_given_back() -> None:
    size = 256 << 20
    try:
        assert keep_freed_memory()
        block = torch.ones(size, dtype=torch.uint8)
        held = resident()
        del block
        assert resident() > held - size // 2
        assert keep_freed_memory(False)
        ctypes.CDLL(None).malloc_trim(0)
        assert resident() < held - size // 2
    finally:
        keep_freed_memory(False)


def test_a_users_choice_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPT_OUT, "1")
    assert not keep_freed_memory()
