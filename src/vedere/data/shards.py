"""Tar shards in the manner of webdataset: read at random, written byte for byte the same.

Members that share everything before the first dot of their base name are one record: media (``.jpg``, ``.png``,
``.webp``, ``.mp4``, ...; several as ``key.0.jpg``, ``key.1.jpg``) with a ``.json`` (a record of `vedere.data.formats`, or
``{"caption": text}``) or a ``.txt`` (the caption). Web-scale pre-training sets (Laion, COYO: stage S1.1 of Mono-InternVL,
arXiv 2410.08202) come in this form.

What differs from webdataset: shards are indexed by member offsets once (the headers only), so that shuffling, sharding
and resuming need nothing but an integer; the price is that shards are local and uncompressed. A truncated shard is an
error at opening, not a shorter epoch.

Cost: one seek a member at opening; about 200 bytes a record kept.
"""

from __future__ import annotations

import glob
import io
import json
import os
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from vedere.data.formats import DatasetInfo, Kind, decode_json, sample_from_record
from vedere.data.sample import MediaRef, Sample
from vedere.errors import RecordError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
VIDEO_SUFFIXES = ("mp4", "webm", "mkv", "mov", "avi")
CAPTION_PROMPT = "Describe this in one short sentence."
_BLOCK = 512

# (suffix after the key, member name, offset of the data, size)
_Member = tuple[str, str, int, int]


def split_member(name: str) -> tuple[str, str]:
    """(key, suffix) of a member: ``a/b.0.jpg`` is ``("a/b", "0.jpg")``."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()


def _kind(suffix: str) -> Kind | None:
    last = suffix.rpartition(".")[2]
    if last in IMAGE_SUFFIXES:
        return "image"
    return "video" if last in VIDEO_SUFFIXES else None


def index_shard(path: Path | str) -> list[tuple[str, list[_Member]]]:
    """Reads the headers of a shard.

    Returns:
        (key, members) of each record in the order of first appearance.

    Raises:
        RecordError: missing, compressed, truncated or no tar file; a key that has two members with the same suffix.
    """
    path = Path(path)
    groups: dict[str, list[_Member]] = {}
    seen: set[tuple[str, str]] = set()
    end = 0
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(2) == b"\x1f\x8b":
                raise RecordError(f"{path}: a gzip file; records are read at random: decompress it (gunzip) first")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="strict") as tar:
                for member in tar:
                    end = member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if member.isreg() else 0)
                    if member.size < 0 or end > size:
                        raise RecordError(
                            f"{path}: member '{member.name}' needs {end} bytes of file, there are {size}; "
                            "the shard is truncated: write or fetch it again"
                        )
                    if not member.isreg():
                        continue
                    key, suffix = split_member(member.name)
                    if (key, suffix) in seen:
                        raise RecordError(f"{path}: record '{key}' has two members '.{suffix}'; keys must be unique")
                    seen.add((key, suffix))
                    groups.setdefault(key, []).append((suffix, member.name, member.offset_data, member.size))
            file.seek(end)
            if file.read(_BLOCK) != bytes(_BLOCK):
                raise RecordError(
                    f"{path}: no end-of-archive block after byte {end}; the shard is truncated or damaged there: "
                    "write or fetch it again"
                )
    except OSError as error:
        raise RecordError(f"{path}: the shard cannot be read ({error.strerror})") from None
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise RecordError(f"{path}: not a tar shard ({error})") from None
    return list(groups.items())


def find_shards(pattern: Path | str) -> list[Path]:
    """Shards of a file name, a folder (its ``*.tar``) or a glob pattern, sorted by name.

    Raises:
        RecordError: nothing matches.
    """
    path = Path(pattern)
    if os.path.isfile(path):  # unlike Path.is_file, no error at impossible names
        return [path]
    found = (
        sorted(path.glob("*.tar")) if os.path.isdir(path) else [Path(name) for name in sorted(glob.glob(str(pattern)))]
    )
    if not found:
        raise RecordError(
            f"{pattern}: no shards; expected a .tar file, a folder of them, or a pattern like 'train-*.tar'"
        )
    return found


class TarRecords:
    """Samples of one or more shards, by index.

    Args:
        paths: Shards, in the order that indices count through them.
        info: What the data set says about its records; by default only its name, the first shard's.
        caption_prompt: The user's turn of records that are a caption only.

    Raises:
        RecordError: a shard cannot be indexed, or there is no record.
    """

    def __init__(
        self, paths: Iterable[Path | str], *, info: DatasetInfo | None = None, caption_prompt: str = CAPTION_PROMPT
    ) -> None:
        """Indexes the shards."""
        self.paths = [Path(path) for path in paths]
        if not self.paths:
            raise RecordError("a tar data set without shards; name at least one")
        self.info = info or DatasetInfo(name=self.paths[0].stem)
        self.caption_prompt = caption_prompt
        self._records: list[tuple[str, list[_Member]]] = []
        self._starts: list[int] = []
        for path in self.paths:
            self._starts.append(len(self._records))
            self._records += index_shard(path)
        if not self._records:
            raise RecordError(f"{self.paths[0]}: no records in {len(self.paths)} shards")

    def __len__(self) -> int:
        """Number of records."""
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        """The sample at ``index``.

        Raises:
            IndexError: no such record.
            RecordError: the record cannot become a sample; names shard and key.
            MediaError: the shard got shorter since it was indexed.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.paths[0]}")
        shard = str(self.paths[bisect_right(self._starts, index) - 1])
        key, members = self._records[index]
        where = f"{shard}:{key}"
        refs: dict[str, MediaRef] = {}
        texts: dict[str, MediaRef] = {}
        for suffix, name, offset, size in members:
            kind = _kind(suffix)
            ref = MediaRef(kind=kind or "image", path=shard, member=name, offset=offset, size=size)
            (refs if kind else texts)[name if kind else suffix] = ref
        record = self._record(texts, refs, where)

        def resolve(kind: Kind, name: str, clip: tuple[float, float] | None) -> MediaRef:
            for member, ref in refs.items():
                if name in (member, member.rpartition("/")[2]) and ref.kind == kind:
                    return replace(ref, clip=clip)
            raise RecordError(f"{where}: no {kind} member '{name}'; the record has {sorted(refs) or 'no media'}")

        return sample_from_record(record, info=self.info, where=where, key=key, resolve=resolve)

    def _record(self, texts: Mapping[str, MediaRef], refs: Mapping[str, MediaRef], where: str) -> object:
        """The record in the form of `formats`, with the media of the group filled in where it names none."""
        caption: object = None
        record: dict[str, Any] = {}
        if "json" in texts:
            decoded = decode_json(texts["json"].read(), where + ".json")
            if not isinstance(decoded, dict) or "conversations" in decoded:
                if not isinstance(decoded, dict):
                    return decoded
                record = decoded
            else:
                caption = decoded.get("caption")
                record = {name: decoded[name] for name in ("id", "weight", "licence", "clip") if name in decoded}
        if "conversations" not in record:
            if caption is None and "txt" in texts:
                try:
                    caption = texts["txt"].read().decode("utf-8-sig").strip()
                except UnicodeDecodeError as error:
                    raise RecordError(f"{where}.txt: byte {error.start} is not UTF-8; save it as UTF-8") from None
            if not isinstance(caption, str) or not caption:
                raise RecordError(
                    f"{where}: no text; expected a .json with 'conversations' or 'caption', or a .txt caption "
                    f"(members: {sorted([*texts, *refs])})"
                )
            prompt, answer = self.caption_prompt, caption
            record["conversations"] = [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]
        if not record.get("image") and not record.get("video"):
            for kind in ("image", "video"):
                record[kind] = [name for name, ref in refs.items() if ref.kind == kind]
        return record


class ShardWriter:
    """Writes records into numbered shards; equal records give equal bytes.

    A shard appears under its name only when it is complete (temporary file, fsync, rename).

    Args:
        folder: Where shards go; made if missing.
        prefix: Shards are ``{prefix}-{number:06d}.tar``.
        max_records: Records a shard.
        max_bytes: A shard is closed when its members exceed this size.
    """

    def __init__(
        self, folder: Path | str, *, prefix: str = "shard", max_records: int = 10_000, max_bytes: int = 1 << 30
    ) -> None:
        """Makes the folder; shards are opened with their first record."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prefix = prefix
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.paths: list[Path] = []
        self._tar: tarfile.TarFile | None = None
        self._file: io.BufferedWriter | None = None
        self._keys: set[str] = set()
        self._bytes = 0

    def write(self, key: str, members: Mapping[str, bytes | str | Mapping[str, Any]]) -> None:
        """Adds a record.

        Args:
            key: Unique in its shard, without dots in its base name.
            members: Content by suffix, in order; mappings are written as JSON, strings as UTF-8.

        Raises:
            RecordError: an unusable or repeated key, or no members.
        """
        if not key or split_member(key)[1] or key.endswith("/") or key.startswith("/"):
            raise RecordError(f"shard key '{key}'; expected a relative name without dots in its last part")
        if not members:
            raise RecordError(f"record '{key}' has no members; give at least one suffix and its content")
        if self._tar is not None and (len(self._keys) >= self.max_records or self._bytes >= self.max_bytes):
            self._finish()
        if key in self._keys:
            raise RecordError(f"record '{key}' was already written to this shard; keys must be unique")
        tar = self._tar or self._start()
        self._keys.add(key)
        for suffix, content in members.items():
            if isinstance(content, Mapping):
                data = json.dumps(content, ensure_ascii=False, sort_keys=True).encode()
            else:
                data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(f"{key}.{suffix}")  # mtime, uid and gid are 0, names empty: nothing of this machine
            info.size = len(data)
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(data))
            self._bytes += len(data)

    def _start(self) -> tarfile.TarFile:
        path = self.folder / f"{self.prefix}-{len(self.paths):06d}.tar"
        self._file = path.with_suffix(".tar.part").open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self.paths.append(path)
        self._keys, self._bytes = set(), 0
        return self._tar

    def _finish(self) -> None:
        if self._tar is None or self._file is None:
            return
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self.paths[-1].with_suffix(".tar.part"), self.paths[-1])
        self._tar = self._file = None

    def close(self) -> None:
        """Completes the last shard."""
        self._finish()

    def __enter__(self) -> ShardWriter:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Completes the last shard, or removes it if the body failed."""
        if kind is None:
            self._finish()
        elif self._file is not None:
            self._file.close()
            self.paths.pop().with_suffix(".tar.part").unlink(missing_ok=True)
            self._tar = self._file = None
