"""Files that are either the old ones or the new ones, never half written.

Write beside the target, flush to the disk (fsync), rename over the target, flush the directory. A full disk, a kill or a
power cut at any moment leaves the previous file as it was. "Beside" is a hidden folder whose name carries host and process:
what a killed process left behind (temporary files of the libraries that write included) is removed by the next write of the
same file, and two processes never share anything.

Cost: one fsync a file and one a directory; the space of the old and the new file at once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError

from vedere.errors import CheckpointError

Writer = Callable[[Path], None]


def temporary_name(name: str) -> str:
    """A hidden sibling name that only this process uses: ``.name.host.pid.random.tmp``."""
    return f".{name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


def remove_leftovers(directory: Path, name: str) -> None:
    """Removes temporary files and folders of ``name`` whose process on this host no longer lives."""
    prefix = f".{name}.{_host()}."
    with contextlib.suppress(OSError):
        for entry in list(directory.iterdir()):
            if not (entry.name.startswith(prefix) and entry.name.endswith(".tmp")):
                continue
            process = entry.name[len(prefix) :].split(".")[0]
            if process.isdigit() and not _alive(int(process)):
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def write_atomically(path: Path | str, writer: Writer) -> None:
    """Writes one file so that ``path`` always holds either its old or its complete new content.

    Args:
        path: Target; its folder is created.
        writer: Called with a temporary path on the same disk, where it must create the file.

    Raises:
        CheckpointError: the disk is full or cannot be written; the old file is intact.
    """
    path = Path(path)
    write_together(path.parent, {path.name: writer})


def write_together(directory: Path | str, writers: Mapping[str, Writer]) -> None:
    """Writes several files of one folder: all of them are complete on the disk before the first is renamed.

    Renames happen in the order of ``writers``; put the file that the others hang on (an index) last.

    Raises:
        CheckpointError: the disk is full or cannot be written; no file has been replaced.
    """
    directory = Path(directory)
    pending: dict[str, Path] = {}
    name = next(iter(writers), "")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, writer in writers.items():
            remove_leftovers(directory, name)
            pending[name] = directory / temporary_name(name)
            pending[name].mkdir()
            target = pending[name] / name
            writer(target)
            os.chmod(target, pending[name].stat().st_mode & 0o666)  # safetensors makes private files; follow the umask
            _flush(target)
        for name, folder in pending.items():
            os.replace(folder / name, directory / name)
        flush_directory(directory)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_explain(directory, name, error)) from error
    finally:
        for left in pending.values():
            shutil.rmtree(left, ignore_errors=True)


def flush_directory(directory: Path) -> None:
    """Makes renames inside ``directory`` survive a power cut (a no-op where folders cannot be opened)."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(directory: Path, name: str, error: Exception) -> str:
    free = ""
    with contextlib.suppress(OSError):
        there = next(parent for parent in [directory, *directory.parents] if parent.exists())
        free = f" ({shutil.disk_usage(there).free / 1e6:,.0f} MB free)"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (
        f"cannot write {directory / name}: {reason}{free}; what was there before is untouched. Free space on that disk, "
        "raise the file size limit, or choose another directory"
    )


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _host() -> str:
    return "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:32] or "host"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
