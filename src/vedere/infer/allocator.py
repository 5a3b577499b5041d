"""A C allocator that keeps freed memory while a model answers on a CPU.

glibc takes large blocks from the system and gives them back at once, so that every activation of a prompt is cleared and mapped
anew, page by page: a sixth of the time to the first token of InternVL3-1B. Told to keep what it has, it reuses it. Unlike
`vedere.train.allocator`, which also wants huge pages, this needs no new process and can be undone.

Cost: the process keeps the memory of its largest prompt.
"""

from __future__ import annotations

import ctypes
import os
import platform

OPT_OUT = "VEDERE_KEEP_ALLOCATOR"
_TRIM, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # names of malloc.h
_KEEP = ((_MMAP_MAX, 0), (_TRIM, 2**31 - 1), (_TOP_PAD, 2**28))
_DEFAULTS = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 2**17), (_TRIM, 2**17), (_TOP_PAD, 2**17))


def keep_freed_memory(keep: bool = True) -> bool:
    """Sets the allocator; returns whether it took it (glibc only, and not where ``VEDERE_KEEP_ALLOCATOR`` is set).

    Args:
        keep: False goes back to glibc's defaults.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc" or os.environ.get(OPT_OUT):
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(name, value) == 1 for name, value in (_KEEP if keep else _DEFAULTS))
