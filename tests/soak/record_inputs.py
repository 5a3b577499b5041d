"""Records, damaged: annotation lines, meta files and tar shards, up to prepared documents."""

from __future__ import annotations

import io
import math
import random
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case, law
from mutations import damage, damage_json, dump_json
from picture_inputs import good_pictures
from video_inputs import EVEN, _write

from vedere.data.formats import JsonlRecords
from vedere.data.mixture import open_meta
from vedere.data.packing import check_document
from vedere.data.prepare import SamplePreparer
from vedere.data.sample import Sample
from vedere.data.shards import ShardWriter, TarRecords
from vedere.errors import VedereError
from vedere.plan import TilingPolicy
from vedere.text.chat import get_template
from vedere.text.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tiny_models import tiny_tokenizer

LINES: tuple[dict[str, Any], ...] = (
    {"id": 1, "image": "a.png", "conversations": [["human", "<image>\nWhat is it?"], ["gpt", "A bus."]]},
    {"id": "two", "image": ["a.png", "b.jpg"], "conversations": [["human", "Two: <image> <image>"], ["gpt", "Yes."]]},
    {"id": "three", "image": "b.jpg", "conversations": [["human", "No tag"], ["gpt", "Then it is put in front."]]},
    {"id": 4, "video": "c.mp4", "clip": [0, 0.4], "conversations": [["human", "<video>\nWhat moves?"], ["gpt", "It."]]},
    {
        "conversations": [["system", "Be kind."], ["human", "Hello"], ["gpt", "Hi."], ["human", "?"], ["gpt", "!"]],
        "weight": 0.5,
        "licence": "CC0",
    },
    {"id": "six", "image": "", "conversations": [["human", "Text only"], ["gpt", "Über 图 🙂"]]},
)


def _record(line: dict[str, Any]) -> dict[str, Any]:
    turns = [{"from": speaker, "value": text} for speaker, text in line["conversations"]]
    return line | {"conversations": turns}


class Records:
    """Annotation files, meta files and shards in a folder with real media."""

    def __init__(self, folder: Path) -> None:
        pictures = good_pictures()
        self.media = {
            "a.png": pictures["png RGBA"],
            "b.jpg": pictures["jpeg"],
            "c.mp4": _write(folder / "c.mp4", "libx264", EVEN, {}, False),
        }
        tiny_tokenizer(folder / "model")
        self.prepare = SamplePreparer(
            tokenizer=Tokenizer.load(folder / "model"),
            template=get_template("smollm2"),
            policy=TilingPolicy(tile=28, patch=7, max_tiles=4),
            frames=(2, 4),
        )
        self.folder = folder
        for name, data in self.media.items():
            (folder / name).write_bytes(data)

    def case(self, rng: random.Random, folder: Path) -> Case:
        draw = rng.random()
        if draw < 0.55:
            return self._jsonl(rng, folder)
        return self._meta(rng, folder) if draw < 0.75 else self._tar(rng, folder)

    def _jsonl(self, rng: random.Random, folder: Path) -> Case:
        records: list[Any] = [_record(line) for line in rng.sample(LINES, 3)]
        expect, draw = "either", rng.random()
        if draw < 0.05:
            expect, what = "works", "as it is"
            data = b"\n".join(map(dump_json, records))
        elif draw < 0.7:
            records[1], what = damage_json(records[1], rng)
            data = b"\n".join(map(dump_json, records)) + rng.choice((b"", b"\n", b"\n\n\r\n"))
        else:
            data, what = damage(b"\n".join(map(dump_json, records)) + b"\n", rng)
        if rng.random() < 0.05:
            data = rng.choice((b"", b"\n", b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n"), b"[" + data + b"]"))
            expect, what = "either", "another form"
        path = folder / "lines.jsonl"
        path.write_bytes(data)
        seed = rng.randrange(1000)
        return Case(
            what=f"jsonl: {what}",
            names=(path.name,),
            expect=expect,
            run=lambda: self._read(lambda: [JsonlRecords(path, root=self.folder)], seed),
        )

    def _meta(self, rng: random.Random, folder: Path) -> Case:
        (folder / "lines.jsonl").write_bytes(b"\n".join(dump_json(_record(line)) for line in LINES))
        with ShardWriter(folder, prefix="part") as writer:
            writer.write("k", {"png": self.media["a.png"], "txt": "a bus"})
        root = str(self.folder)
        meta: Any = {
            "lines": {
                "root": root,
                "annotation": "lines.jsonl",
                "data_augment": True,
                "repeat_time": 2,
                "length": 6,
                "max_dynamic_patch": 2,
                "conv_style": "smollm2",
            },
            "shards": {"annotation": "part-000000.tar", "weight": 2.0, "licence": "CC0"},
        }
        expect, draw = "either", rng.random()
        if draw < 0.05:
            expect, what, data = "works", "as it is", dump_json(meta)
        elif draw < 0.8:
            meta, what = damage_json(meta, rng)
            data = dump_json(meta)
        else:
            data, what = damage(dump_json(meta), rng)
        path = folder / "meta.json"
        path.write_bytes(data)
        seed = rng.randrange(1000)
        return Case(
            what=f"meta: {what}",
            # A message speaks of the meta file, of a data set in it, or of a file that it names.
            names=(path.name, "data set", "lines.jsonl", "part-000000.tar", ".tar"),
            expect=expect,
            run=lambda: self._read(lambda: [part.records for part in open_meta(path)], seed),
        )

    def _tar(self, rng: random.Random, folder: Path) -> Case:
        record, media = _in_shard(_record(rng.choice(LINES)))
        expect, what, draw = "works", "as it is", rng.random()
        if draw < 0.4:
            expect = "either"
            record, what = damage_json(record, rng)
        content = {f"k.{name}": self.media[name] for name in media} | {"k.json": dump_json(record)}
        content |= {"x.png": self.media["a.png"], "x.txt": b"a bus"}
        buffer = io.BytesIO()
        form = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name, data in content.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        data = buffer.getvalue()
        if draw > 0.5:
            expect = "either"
            if draw < 0.75:
                data, what = self._header(data, rng), "tar header"
            else:
                data, what = damage(data, rng)
        path = folder / "shard.tar"
        path.write_bytes(data)
        seed = rng.randrange(1000)
        return Case(
            what=f"tar: {what}",
            names=(path.name,),
            expect=expect,
            run=lambda: self._read(lambda: [TarRecords([path])], seed),
        )

    @staticmethod
    def _header(data: bytes, rng: random.Random) -> bytes:
        """A changed field of a member's header, with the right checksum."""
        starts = [at for at in range(0, len(data) - 512, 512) if data[at + 257 : at + 262] == b"ustar"]
        if not starts:
            return data
        at = rng.choice(starts)
        block = bytearray(data[at : at + 512])
        start, size = rng.choice(((0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 6), (345, 155)))
        texts = (
            b"77777777777",
            b"\x80" + b"\xff" * 11,
            b"\xff" * 12,
            b"-1",
            b"0",
            b"9",
            b"L",
            b"x",
            b"S",
            b"../../k.png",
        )
        value = rng.choice((rng.choice(texts), rng.randbytes(size)))[:size]
        block[start : start + size] = value.ljust(size, b"\0")
        block[148:156] = b" " * 8
        block[148:156] = f"{sum(block):06o}\0 ".encode()
        return data[:at] + bytes(block) + data[at + 512 :]

    def _read(self, open_all: Any, seed: int) -> None:
        """Every record becomes a sample or an error; some samples are prepared. The first error is raised at the end."""
        refused: list[VedereError] = []
        for records in open_all():
            law(len(records) > 0, "a data set without records")
            for index in range(min(len(records), 20)):
                try:
                    sample = records[index]
                    check_sample(sample)
                except VedereError as error:
                    refused.append(error)
                    continue
                try:
                    if (seed + index) % 2 == 0:
                        check_prepared(sample, self.prepare, seed)
                except VedereError as error:  # the loader puts the place in front as well
                    refused.append(type(error)(f"{sample.source}: {error}"))
        if refused:
            raise refused[0]


def _in_shard(record: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The record with its media called as the members of record ``k``, and their plain names."""
    found: list[str] = []
    for kind in ("image", "video"):
        names = record.get(kind) or []
        plain = [names] if isinstance(names, str) else names
        found += plain
        if plain:
            called = [f"k.{name}" for name in plain]
            record = record | {kind: called[0] if isinstance(names, str) else called}
    return record, found


def check_sample(sample: Sample) -> None:
    """What a reader promises of a sample."""
    sample.name.encode()
    users = [turn for turn in sample.conversation if turn.role == "user"]
    law(users, "a sample without a user turn")
    tags = sum(turn.content.count("<image>") + turn.content.count("<video>") for turn in users)
    law(tags == len(sample.media), f"{tags} placeholders for {len(sample.media)} media")
    law(0 < sample.weight < math.inf and isinstance(sample.weight, float), f"weight {sample.weight}")
    law(isinstance(sample.licence, str), f"licence {sample.licence!r}")
    law(all(isinstance(ref.path, str) and "\0" not in ref.path for ref in sample.media), "a path that is none")


def check_prepared(sample: Sample, prepare: SamplePreparer, seed: int) -> None:
    """A document that packs, and the same one again."""
    document = prepare(sample, random.Random(seed))
    check_document(document, 4)
    law(document.tiles.dtype == np.uint8 and document.tiles.shape[1:] == (3, 28, 28), f"tiles {document.tiles.shape}")
    law(document.ids.dtype == np.int64 and len(document.ids) == len(document.labels), "ids and labels")
    trained = document.labels != -100
    law(trained.any() and (document.labels[trained] == document.ids[trained]).all(), "labels are not the ids")
    law(not trained[document.span_types != 0].any(), "a trained media position")
    again = prepare(sample, random.Random(seed))
    same = np.array_equal(document.ids, again.ids) and np.array_equal(document.tiles, again.tiles)
    law(same, "preparing twice gives another document")


def make(folder: Path) -> Records:
    """The family; media and tokenizer in ``folder``."""
    return Records(folder)
