"""A folder of named tensors: one safetensors file, or several with an index.

Reading maps the files into memory: nothing is copied until a tensor is used, and writing to a tensor does not write to
the file. A tensor that is only read to be rearranged or converted is taken `Stored.alone`: its mapping ends with it, and the
pages that it touched no longer count, so a checkpoint is never in memory twice. Writing is atomic (`vedere.atomic`): all
files are complete on the disk before the first is renamed, new shards never take the name of an old one, and the index,
renamed last, decides. Pickled ``.bin`` files are read with ``weights_only=True``, here and nowhere else, and never written.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vedere.atomic import Writer, write_together
from vedere.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # bytes
_OLD_WEIGHTS, _OLD_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def read_file(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (memory-mapped) and text metadata of one safetensors file.

    Raises:
        CheckpointError: the file is missing, cut off, or no safetensors file.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(_damage(path, error)) from None


@dataclass(frozen=True)
class Stored:
    """The tensors of a folder, mapped into memory and not yet read.

    Attributes:
        tensors: By name; they share one mapping a file, which lives as long as any of them.
        files: The file that each is in.
    """

    tensors: dict[str, Tensor]
    files: dict[str, Path]

    def alone(self, name: str) -> Tensor:
        """A tensor in a mapping of its own, whose pages leave memory with it; for what is read once.

        Costs the header of the file again (safetensors: well under a millisecond; ``.bin``: all its names).
        """
        path = self.files[name]
        if path.suffix != ".safetensors":
            return read_pickled(path)[name] if zipfile.is_zipfile(path) else self.tensors[name]
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(_damage(path, error)) from None


def open_tensors(directory: Path | str) -> Stored:
    """All tensors of a folder: the index if there is one, else `model.safetensors`, else the old ``.bin`` forms.

    Raises:
        CheckpointError: no weights, a missing shard (named), a damaged file, or one tensor in two shards.
    """
    directory = Path(directory)
    if (directory / INDEX).is_file():
        return _open_shards(directory, INDEX, lambda path: read_file(path)[0])
    if (directory / WEIGHTS).is_file():
        return _one_file(directory / WEIGHTS, read_file(directory / WEIGHTS)[0])
    if (directory / _OLD_INDEX).is_file():
        return _open_shards(directory, _OLD_INDEX, read_pickled)
    if (directory / _OLD_WEIGHTS).is_file():
        return _one_file(directory / _OLD_WEIGHTS, read_pickled(directory / _OLD_WEIGHTS))
    found = (
        ", ".join(sorted(entry.name for entry in directory.iterdir())[:10]) if directory.is_dir() else "no such folder"
    )
    raise CheckpointError(
        f"no weights in {directory}: expected {WEIGHTS} or {INDEX} with its shards (or {_OLD_WEIGHTS}); found: "
        f"{found or 'an empty folder'}. Check the path or finish the download"
    )


def read_tensors(directory: Path | str) -> dict[str, Tensor]:
    """`open_tensors`, the tensors only."""
    return open_tensors(directory).tensors


def _one_file(path: Path, tensors: dict[str, Tensor]) -> Stored:
    return Stored(tensors, dict.fromkeys(tensors, path))


def write_tensors(
    directory: Path | str,
    tensors: Mapping[str, Tensor],
    *,
    max_shard_bytes: int = 5_000_000_000,
    beside: Mapping[str, Writer] | None = None,
) -> None:
    """Writes a folder of tensors atomically.

    Args:
        directory: Target; an earlier checkpoint in it stays valid until the new one is complete.
        tensors: Names and tensors.
        max_shard_bytes: Largest shard; a larger single tensor gets a shard of its own.
        beside: Further files (config.json) to write in the same step, renamed before the weights.

    Raises:
        CheckpointError: the disk is full or cannot be written; the earlier checkpoint is intact.
    """
    directory = Path(directory)
    if max_shard_bytes < 1:
        raise CheckpointError(f"max_shard_bytes is {max_shard_bytes}; expected at least 1")
    shards = _shard(tensors, max_shard_bytes)
    writers: dict[str, Writer] = dict(beside or {})
    if len(shards) == 1:
        writers[WEIGHTS] = file_writer(shards[0])
        kept = {WEIGHTS}
    else:
        names = _shard_names(directory, len(shards))
        weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        writers |= {file: file_writer(shard) for file, shard in zip(names, shards, strict=True)}
        writers[INDEX] = json_writer(index)
        kept = {*names, INDEX}
    write_together(directory, writers)
    # The new weights count from here on. Without an index the old index must go first, then what it named.
    with contextlib.suppress(OSError):
        stale = [entry for entry in directory.glob("model*.safetensors*") if entry.name not in kept]
        for entry in sorted(stale, key=lambda entry: entry.name != INDEX):
            entry.unlink()


def json_writer(data: Any) -> Writer:
    """A writer of indented JSON for `write_together` and `write_atomically`."""
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    return lambda path: _write_text(path, text)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def file_writer(tensors: Mapping[str, Tensor]) -> Writer:
    """A writer of one safetensors file for `write_together`."""
    ready = {name: tensor.detach() for name, tensor in tensors.items()}
    return lambda path: save_file({n: t.contiguous() for n, t in ready.items()}, path, metadata={"format": "pt"})


def _shard(tensors: Mapping[str, Tensor], most: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > most:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _shard_names(directory: Path, count: int) -> list[str]:
    names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    if any((directory / name).exists() for name in names):  # an old shard keeps its name until the new index counts
        mark = secrets.token_hex(3)
        names = [name.replace("model-", f"model-{mark}-") for name in names]
    return names


def _open_shards(directory: Path, index: str, read: Callable[[Path], dict[str, Tensor]]) -> Stored:
    try:
        data = json.loads((directory / index).read_text(encoding="utf-8"))
        weight_map = dict(data["weight_map"])
        files = sorted({str(file) for file in weight_map.values()})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{directory / index} is no index of shards ({type(error).__name__}: {error}); expected a JSON object with "
            "'weight_map'; download it again"
        ) from None
    outside = [file for file in files if Path(file).name != file]
    if outside:
        raise CheckpointError(f"{directory / index} names the shard '{outside[0]}' outside its folder; refused")
    missing = [file for file in files if not os.path.isfile(directory / file)]  # no error at impossible names
    if missing:
        lost = [name for name, file in weight_map.items() if str(file) in missing]
        raise CheckpointError(
            f"{len(missing)} of {len(files)} shards named by {directory / index} are missing: {', '.join(missing[:8])}; "
            f"finish the download ({len(lost)} tensors are in them, such as '{lost[0]}')"
        )
    tensors: dict[str, Tensor] = {}
    places: dict[str, Path] = {}
    for file in files:
        for name, tensor in read(directory / file).items():
            if name in tensors:
                raise CheckpointError(
                    f"'{name}' is in {file} and in another shard of {directory}; remove the shards that belong to another "
                    "checkpoint"
                )
            tensors[name], places[name] = tensor, directory / file
    lost = [name for name in weight_map if name not in tensors]
    if lost:
        raise CheckpointError(
            f"{directory / index} places '{lost[0]}' in {weight_map[lost[0]]}, which does not hold it "
            f"({len(lost)} such tensors); index and shards are of different checkpoints; download them again"
        )
    return Stored(tensors, places)


def read_pickled(path: Path) -> dict[str, Tensor]:
    """Named tensors of an old ``.bin`` or ``.pth`` file: the only place that opens one, and only as plain tensors.

    Raises:
        CheckpointError: damaged, or holding anything else.
    """
    try:
        mapped = zipfile.is_zipfile(path)  # the form before torch 1.6 cannot be memory-mapped
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # the unpickler stumbles over damage in any way, from IndexError to RecursionError
        line = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{path} cannot be read as plain tensors ({type(error).__name__}: {line}); vedere runs no code out of pickles; "
            "download it again, or convert it to safetensors with the tool that wrote it"
        ) from None
    if not isinstance(data, dict) or not all(isinstance(value, Tensor) for value in data.values()):
        raise CheckpointError(f"{path} holds something else than named tensors; expected the state dict of a model")
    return {str(name): tensor for name, tensor in data.items()}


def _damage(path: Path, error: Exception) -> str:
    """What is wrong with a safetensors file, in bytes and by the first tensor that it concerns, where that can be told."""
    if not path.is_file():
        return f"no file {path}; check the path or finish the download"
    size, promised, broken = path.stat().st_size, 0, ""
    with contextlib.suppress(Exception), open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        promised = 8 + length
        if promised <= size:
            header = {name: entry for name, entry in json.loads(file.read(length)).items() if name != "__metadata__"}
            start, promised = promised, promised + max(entry["data_offsets"][1] for entry in header.values())
            broken = _first_broken(header, size - start)
    if size < 8 or (size < promised < 1 << 50):
        wanted = f"its header promises {promised:,} bytes" if size >= 8 else "a safetensors file starts with 8 bytes"
        return f"{path} is cut off: {wanted}, the file has {size:,}{broken}; download or copy it again"
    return f"{path} is no intact safetensors file ({size:,} bytes; {error}{broken}); download or copy it again"


def _first_broken(header: Mapping[str, Any], size: int) -> str:
    """The first tensor, in the order of the file, whose shape does not fit its place or that is not whole."""
    whole, said = 0, ""
    for name, entry in sorted(header.items(), key=lambda item: int(item[1]["data_offsets"][0])):
        start, end = entry["data_offsets"]
        width = _WIDTHS.get(entry["dtype"])
        if width is not None and math.prod(entry["shape"]) * width != end - start:
            return (
                f"; '{name}' {entry['shape']} of {entry['dtype']} takes {math.prod(entry['shape']) * width:,} bytes, its place "
                f"has {end - start:,}"
            )
        whole += end <= size
        if end > size and not said:
            there = f"{max(0, size - start):,} of {end - start:,} bytes"
            said = f"; the first tensor that is not whole is '{name}' {entry['shape']} ({there})"
    return said and f"{said}, {len(header) - whole} of {len(header)} are not"
