"""A C allocator that keeps what it has: twice the training speed on Linux CPUs.

A step frees and asks again for the same few gigabytes of activations. By default glibc gives large blocks back to the system
each time, and every page is cleared and mapped anew: half of a step on two cores (190 against 390 tokens/s measured for
vedere-mini). The settings below make it keep freed memory and ask for huge pages. They are read when a process starts,
so a process that lacks them is replaced by itself, with them, before any work is done.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

from vedere.infer.allocator import OPT_OUT

SETTINGS = {
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def wanted(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that a process lacks; empty where they do not apply or the user has set some of them.

    Args:
        environment: Environment variables of the process.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc" or environment.get(OPT_OUT):
        return {}
    if any(name in environment for name in SETTINGS):
        return {}
    return dict(SETTINGS)


def restart_with_settings() -> None:
    """Replaces the process by itself with the settings, or returns if it has them; call before torch is imported."""
    missing = wanted(os.environ)
    if missing and sys.orig_argv:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **missing})
