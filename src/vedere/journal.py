"""Answers on disk: appended line by line and flushed, so that a kill or a power cut loses none that was written.

A journal is a jsonl file that only grows. Each append is one write and one fsync. What a kill can leave is a last line without
its end; opening the journal removes it, because an answer counts from its line break on. A line in the middle that cannot be
read is damage from elsewhere and refused by number. On POSIX systems a lock keeps a second process out.

Cost: one fsync an answer (about 1 ms on a disk; answers take longer).
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from vedere.atomic import flush_directory
from vedere.errors import RecordError


class Journal:
    """A jsonl file that grows. Use as a context manager.

    Args:
        path: The file; made if absent.

    Attributes:
        lines: What it holds, in order; `append` adds to it.

    Raises:
        RecordError: another process has it open, a line is not a JSON object, or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115  (closed by close); no buffer: a failed line is gone
        except OSError as error:
            raise RecordError(f"{path} cannot be written ({error.strerror}); choose another folder") from None
        try:
            self._lock()
            self._read()
            flush_directory(path.parent)
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not POSIX
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecordError(
                f"{self.path} is in use by another process; wait for it, or choose another folder"
            ) from None

    def _read(self) -> None:
        whole = 0
        lines = self.path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                content = json.loads(line)
                if not isinstance(content, dict):
                    raise ValueError("not an object")
            except ValueError as error:
                raise RecordError(
                    f"{self.path}:{number} is no JSON object ({error}); the file was changed or the disk is damaged: remove "
                    "that line to ask again about it"
                ) from None
            self.lines.append(content)
            whole += len(line)
        if whole < self.path.stat().st_size:
            self._file.truncate(whole)

    def append(self, line: dict[str, Any]) -> None:
        """Adds an object; it is on the disk when this returns.

        Raises:
            RecordError: the disk is full or fails; nothing of the line is left.
        """
        data = json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        size = self._file.seek(0, os.SEEK_END)
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), size)
            raise RecordError(
                f"{self.path} cannot grow ({error.strerror}); free space on that disk and run again, nothing is asked twice"
            ) from None
        self.lines.append(line)

    def close(self) -> None:
        """Closes the file and gives the lock back."""
        self._file.close()

    def __enter__(self) -> Journal:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self.close()
