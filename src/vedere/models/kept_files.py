"""Files beside the weights that a conversion replaces, remembered in config.json so that the way back restores them.

A native folder has a tokenizer_config.json, a preprocessor and stop ids of its own (`vedere.infer.hf_processor`), made of what
the original folder said. Its config.json keeps what these files were (`remembered`, among the extras under `KEPT_FILES`), each
with a mark of the file in its place. On the way back `files_before` gives them again, but for those that somebody edited.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vedere.errors import CheckpointError

KEPT_FILES = "converted_files"


def files_before(folder: Path, names: Collection[str], kept: Mapping[str, Any]) -> dict[str, str | None]:
    """What files were in the folder that ``folder`` was converted from; None for one that was not there.

    Args:
        folder: A folder in any layout.
        names: Of the files.
        kept: What `remembered` gave; empty for a folder that was never converted. A file that was edited since counts as it is.

    Raises:
        CheckpointError: a file that is no text.
    """
    found: dict[str, str | None] = {}
    for name in names:
        path, entry = folder / name, kept.get(name)
        try:
            text = path.read_bytes().decode("utf-8") if path.is_file() else None
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}; download it again") from None
        if isinstance(entry, Mapping) and (text is None or _mark(text) == entry.get("made")):
            text = entry.get("was")
        found[name] = text if isinstance(text, str) else None
    return found


def remembered(before: Mapping[str, str | None], written: Mapping[str, str]) -> dict[str, Any]:
    """What `files_before` needs on the way back: each file as it was, and the mark of the one that takes its place."""
    return {name: {"was": before[name], "made": _mark(text)} for name, text in written.items()}


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
