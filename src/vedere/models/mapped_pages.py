"""Lets go of the pages of mapped files: what was read from a file and is not needed any more leaves a process's memory.

A weight that was mapped from a file and then brought into another form would else stay resident beside its new form until the
system runs short: twice the model, by every measure of memory that people look at. The file stays mapped, so whoever reads the
weight again gets it again, from the file.
"""

from __future__ import annotations

import ctypes
import mmap
from bisect import bisect_right
from pathlib import Path

from torch import Tensor

_MAPS = Path("/proc/self/maps")  # Linux only; elsewhere nothing is let go
_DONTNEED = 4  # MADV_DONTNEED of sys/mman.h


class MappedFiles:
    """Where files are mapped in this process, as it is now."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []
        if _MAPS.is_file():
            for line in _MAPS.read_text().splitlines():
                addresses, permissions, _, _, inode = line.split(maxsplit=5)[:5]
                if inode != "0" and "x" not in permissions:
                    start, end = addresses.split("-")
                    self.ranges.append((int(start, 16), int(end, 16)))
        self._starts = [start for start, _ in self.ranges]

    def let_go(self, tensor: Tensor) -> bool:
        """Drops the whole pages of a contiguous tensor that lies in a mapped file; whether it did.

        What was written into the pages of a private mapping is lost with them: for weights that are replaced.
        """
        first, size = tensor.data_ptr(), tensor.nbytes
        place = bisect_right(self._starts, first) - 1
        if place < 0 or first + size > self.ranges[place][1] or not tensor.is_contiguous():
            return False
        start, end = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE, (first + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if end <= start:
            return False
        madvise = ctypes.CDLL(None, use_errno=True).madvise
        return bool(madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED) == 0)
