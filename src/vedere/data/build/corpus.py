"""Build the open training corpus: one set of pictures, four stages of records, a held-out set that stays unseen.

EViP (arXiv:2410.08202, section 3.3) trains on noisy labels, then on synthetic captions, then on a mixture, then on
questions. Here one picture serves all four: the picture is written once, and each stage has its own records about it.

Layout below `out`::

    images/<kind>/<split>/000000.jpg       112 x 112 px, other kinds in sizes of their own
    <stage>/<kind>.jsonl                   records of concept, semantic, alignment, instruction
    <stage>/meta.json                      InternVL meta form; roots and annotations relative to the file
    heldout/<kind>.jsonl, heldout/meta.json    questions about pictures that no stage has seen
    meta.json                              the instruction stage again, readable from `out`
    ATTRIBUTION.md, corpus.json            the ledger's entries; what was built (written last)

A record is `{"id", "image", "conversations": [{"from", "value"}, ...], "kind", "question_type", "licence",
"attribution"}`. Deterministic in `seed` for one set of sources, typefaces and Pillow version. Held-out pictures whose
bytes occur in training are left out (boxes of NLVR repeat), and overlapping source files are an error.

Cost: about 5 ms and 4 kB a picture; 30,000 instruction records take two to three minutes on one core.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import PIL
from PIL import Image

from vedere.config import nearest
from vedere.data.build import captions, documents, drawings, easy_vqa, emoji, garments, handwriting, nlvr, scenes, words
from vedere.data.build.blind import blind_accuracy, read_records
from vedere.data.build.ledger import page, require_allowed
from vedere.data.build.record import LABEL_PROMPTS, STAGES, Ask, Item, Kind, Split, Stage, stream
from vedere.data.build.typefaces import all_typefaces
from vedere.errors import ConfigError, PackageError, RecordError

CORPUS_VERSION = 1
KINDS: tuple[Kind, ...] = (
    scenes.KIND,
    words.KIND,
    documents.KIND,
    drawings.KIND,
    garments.KIND,
    nlvr.BOXES,
    nlvr.NLVR,
    handwriting.KIND,
    captions.KIND,
    emoji.KIND,
    easy_vqa.KIND,
)
HELDOUT_RECORDS = 400
MAX_QUESTIONS = 3
SECOND_TURN = 0.12
JPEG_QUALITY = 92
SMALLEST, LARGEST = 48, 640
SEMANTIC_PROMPTS = ("Describe the picture.", "Describe this picture in a sentence.", "What do you see?")


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """What was built.

    Attributes:
        out: the corpus' folder.
        size: instruction records asked for.
        records: stage (and "heldout") -> kind -> records.
        pictures: split -> kind -> pictures.
        skipped: kind -> why it was left out.
        dropped: kind -> held-out pictures left out because training has the same picture.
        blind: kind -> accuracy on the held-out records of guessing without looking.
    """

    out: Path
    seed: int
    size: int
    records: dict[str, dict[str, int]]
    pictures: dict[str, dict[str, int]]
    skipped: dict[str, str]
    dropped: dict[str, int]
    blind: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**asdict(self), "out": str(self.out)}


def select_kinds(kinds: tuple[str, ...] | None, sources: Path | None) -> tuple[list[Kind], dict[str, str]]:
    """Return the kinds that can be built and, by name, why the others are skipped.

    Raises:
        ConfigError: for an unknown kind, or when a kind was asked for by name and its source is missing.
    """
    known = {kind.name: kind for kind in KINDS}
    for name in kinds or ():
        if name not in known:
            raise ConfigError(f"unknown kind '{name}'{nearest(name, known)} (valid kinds: {', '.join(known)})")
    chosen, skipped = [], {}
    for kind in KINDS:
        if kinds is not None and kind.name not in kinds:
            continue
        reason = _missing(kind, sources)
        if reason is None:
            chosen.append(kind)
        elif kinds is not None:
            raise ConfigError(f"kind '{kind.name}' cannot be built: {reason}")
        else:
            skipped[kind.name] = reason
    if not chosen:
        raise ConfigError(f"no kind is left to build of {', '.join(kinds or known)}; name at least one")
    return chosen, skipped


def _missing(kind: Kind, sources: Path | None) -> str | None:
    if kind.ready is not None:
        try:
            kind.ready()
        except (ConfigError, PackageError) as error:
            return str(error)
    if kind.folder is None:
        return None
    needs = f"{kind.folder}/ with {', '.join(kind.looks_for)}"
    if sources is None:
        return f"it needs {needs}, and no folder of sources was given; pass --sources"
    absent = [name for name in kind.looks_for if not (sources / kind.folder / name).exists()]
    return f"{sources} has no {kind.folder}/{absent[0]} (it looks for {needs})" if absent else None


class _Writer:
    """Writes pictures and records of one corpus and keeps the hashes that separate the splits."""

    def __init__(self, out: Path, seed: int, advance: Callable[[], None]) -> None:
        self.out, self.seed, self.advance = out, seed, advance
        self.records: dict[str, dict[str, int]] = {stage: {} for stage in (*STAGES, "heldout")}
        self.pictures: dict[str, dict[str, int]] = {"train": {}, "heldout": {}}
        self.dropped: dict[str, int] = {}
        self.licences: set[str] = set()
        self._hashes: set[str] = set()
        self._keys: dict[str, set[str]] = {}

    def _picture(self, kind: Kind, split: Split, item: Item, number: int) -> str | None:
        """Write one picture; None if the held-out picture is known already."""
        where = f"picture {number} of kind '{kind.name}' ({item.key or 'drawn'})"
        require_allowed(item.licence, where)
        if item.image.mode != "RGB" or not all(SMALLEST <= side <= LARGEST for side in item.image.size):
            raise RecordError(
                f"{where} is {item.image.mode} {item.image.size}; a kind must yield RGB, {SMALLEST} to {LARGEST} px a side"
            )
        data = encode(item.image)
        digest = hashlib.sha256(data).hexdigest()
        if split == "heldout":
            if item.key and item.key in self._keys.get(kind.name, ()):
                raise RecordError(f"{where} is in training and held out; the source's splits must not share files")
            if digest in self._hashes:
                self.dropped[kind.name] = self.dropped.get(kind.name, 0) + 1
                return None
        self._hashes.add(digest)
        if split == "train" and item.key:
            self._keys.setdefault(kind.name, set()).add(item.key)
        name = f"images/{kind.name}/{split}/{number:06d}.jpg"
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.licences.add(item.licence)
        self.advance()
        return name

    def _items(self, kind: Kind, split: Split, count: int, folder: Path) -> Iterator[tuple[int, str, Item]]:
        # Held-out pictures may be dropped, so a few more are drawn than are wanted.
        number, spare = 0, 0 if split == "train" else 200
        for item in kind.make(split, count + spare, self.seed, folder):
            if number == count:
                return
            name = self._picture(kind, split, item, number)
            if name is not None:
                yield number, name, item
                number += 1

    def train(self, kind: Kind, count: int, target: int, folder: Path) -> None:
        """Write the training pictures of a kind and its records of all stages."""
        rows: dict[Stage, list[dict[str, Any]]] = {stage: [] for stage in STAGES}
        spare: list[dict[str, Any]] = []
        made = 0
        for number, name, item in self._items(kind, "train", count, folder):
            rng = stream(self.seed, kind.name, "records", number)
            label = Ask(question=rng.choice(LABEL_PROMPTS), answer=rng.choice(item.labels), question_type="label")
            sentence = Ask(
                question=rng.choice(SEMANTIC_PROMPTS), answer=rng.choice(item.captions), question_type="caption"
            )
            rows["concept"].append(_record(kind, item, name, [label]))
            rows["semantic"].append(_record(kind, item, name, [sentence]))
            rows["alignment"].append(_record(kind, item, name, [rng.choice(item.alignment)]))
            two = rng.random() < SECOND_TURN and len({ask.question_type for ask in item.asks[:2]}) == 2
            turns = list(item.asks[:2] if two else item.asks[:1])
            rows["instruction"].append(_record(kind, item, name, turns))
            spare += [_record(kind, item, name, [ask]) for ask in item.asks[len(turns) : MAX_QUESTIONS]]
            made += 1
        extra = max(0, target - made)
        stream(self.seed, kind.name, "spare").shuffle(spare)
        rows["instruction"] += spare[:extra]
        self.pictures["train"][kind.name] = made
        for stage, stage_rows in rows.items():
            # A repeat factor below 1 keeps the first lines of a file, so the order must carry no meaning.
            stream(self.seed, kind.name, stage).shuffle(stage_rows)
            self._write(stage, kind, stage_rows)

    def heldout(self, kind: Kind, wanted: int, folder: Path) -> None:
        """Write the held-out pictures and questions of a kind: one question each where there are enough pictures."""
        items = list(self._items(kind, "heldout", wanted, folder))
        each = 1 if not items else math.ceil(wanted / len(items))
        rows = [
            _record(kind, item, name, [ask])
            for turn in range(5)
            for _, name, item in items
            for ask in item.asks[turn : turn + 1]
            if turn < each
        ][:wanted]
        self.pictures["heldout"][kind.name] = len(items)
        self._write("heldout", kind, rows)

    def _write(self, stage: str, kind: Kind, rows: list[dict[str, Any]]) -> None:
        for number, row in enumerate(rows):
            row["id"] = f"{kind.name}-{stage}-{number:06d}"
        path = self.out / stage / f"{kind.name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        self.records[stage][kind.name] = len(rows)

    def meta(self, stage: str, at_root: bool = False) -> None:
        """Write the meta file of a stage."""
        entries = {
            kind: {
                "root": "." if at_root else "..",
                "annotation": f"{stage}/{kind}.jsonl" if at_root else f"{kind}.jsonl",
                "data_augment": False,
                "repeat_time": 1,
                "length": length,
            }
            for kind, length in self.records[stage].items()
        }
        path = self.out / "meta.json" if at_root else self.out / stage / "meta.json"
        path.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def encode(image: Image.Image) -> bytes:
    """Return the JPEG bytes of a picture: full colour resolution, quality 92."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _record(kind: Kind, item: Item, image: str, turns: Iterable[Ask]) -> dict[str, Any]:
    conversations: list[dict[str, str]] = []
    asks = list(turns)
    for index, ask in enumerate(asks):
        conversations.append({"from": "human", "value": ("<image>\n" if index == 0 else "") + ask.question})
        conversations.append({"from": "gpt", "value": ask.answer})
    return {
        "id": "",
        "image": image,
        "conversations": conversations,
        "kind": kind.name,
        "question_type": "+".join(ask.question_type for ask in asks),
        "licence": item.licence,
        "attribution": item.attribution,
    }


@contextmanager
def _progress(total: int, show: bool) -> Iterator[Callable[[], None]]:
    """Show a bar on standard error."""
    if not show:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("pictures", total=total)
        yield lambda: bar.advance(task)


def build_corpus(
    out: Path,
    *,
    sources: Path | None = None,
    size: int = 30_000,
    seed: int = 0,
    kinds: tuple[str, ...] | None = None,
    heldout: int = HELDOUT_RECORDS,
    progress: bool = True,
) -> CorpusSummary:
    """Build a corpus.

    Args:
        out: folder to write; must be absent or empty.
        sources: folder with the sources' folders (see `docs/data-ledger.md`); kinds whose source is missing are
            skipped, and the summary says why.
        size: instruction records of all kinds together; the other stages have one record a picture.
        seed: everything is drawn from it.
        kinds: names of the kinds to build, all that can be built if None.
        heldout: held-out records per kind, as far as the data allow.
        progress: show a progress bar on standard error.

    Returns:
        Counts, skipped kinds and blind baselines; the same data stands in `corpus.json`.

    Raises:
        ConfigError: for an unknown kind, a missing source of a kind asked for by name, a size that is too small, or an
            output folder that is not empty.
        RecordError: when a source holds a picture under a licence that is not allowed, or in both splits.
    """
    chosen, skipped = select_kinds(kinds, sources)
    if size < 10 * len(chosen) or heldout < 1:
        raise ConfigError(
            f"size {size} with {heldout} held-out records is too small for {len(chosen)} kinds; "
            f"ask for a size of at least {10 * len(chosen)} and one held-out record"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not an empty folder; name a new one or remove it")
    out.mkdir(parents=True, exist_ok=True)
    total = sum(kind.share for kind in chosen)
    targets = {kind.name: max(10, round(size * kind.share / total)) for kind in chosen}
    counts = {kind.name: max(1, math.ceil(targets[kind.name] / kind.per_picture)) for kind in chosen}
    with _progress(sum(counts.values()) + heldout * len(chosen), progress) as advance:
        writer = _Writer(out, seed, advance)
        for kind in chosen:
            writer.train(kind, counts[kind.name], targets[kind.name], _folder(kind, sources))
        for kind in chosen:
            writer.heldout(kind, heldout, _folder(kind, sources))
    for stage in (*STAGES, "heldout"):
        writer.meta(stage)
    writer.meta("instruction", at_root=True)
    used = [name for kind in chosen for name in kind.ledger]
    (out / "ATTRIBUTION.md").write_text(page(used), encoding="utf-8")
    summary = CorpusSummary(
        out=out,
        seed=seed,
        size=size,
        records=writer.records,
        pictures=writer.pictures,
        skipped=skipped,
        dropped=writer.dropped,
        blind=blind_accuracy(read_records(out / "instruction"), read_records(out / "heldout")),
    )
    environment = {
        "corpus_version": CORPUS_VERSION,
        "licences": sorted(writer.licences),
        "pillow": PIL.__version__,
        "typefaces": sorted({face.family for kind in chosen if "typefaces" in kind.ledger for face in all_typefaces()}),
    }
    text = json.dumps({**summary.as_json(), "out": out.name, **environment}, indent=2) + "\n"
    (out / "corpus.json").write_text(text, encoding="utf-8")
    return summary


def _folder(kind: Kind, sources: Path | None) -> Path:
    return Path() if kind.folder is None or sources is None else sources / kind.folder
