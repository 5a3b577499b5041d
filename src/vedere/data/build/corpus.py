"""Build the open training corpus: one set of pictures, four stages of records, a held-out set that stays unseen.

EViP (arXiv:2410.08202, section 3.3) trains on noisy labels, then on synthetic captions, then on a mixture, then on
questions. Here one picture serves all four: the picture is written once, and each stage has its own records about it.

Layout below `out`::

    images/<kind>/<split>/000000.jpg       160 x 160 px if drawn; 000000-1.jpg, 000000-2.jpg of pairs
    videos/<kind>/<split>/000000.mp4       clips
    <stage>/<kind>.jsonl                   records of concept, semantic, alignment, instruction
    <stage>/meta.json                      InternVL meta form; roots and annotations relative to the file
    heldout/<kind>.jsonl, heldout/meta.json    questions about pictures that no stage has seen
    meta.json                              the instruction stage again, readable from `out`
    ATTRIBUTION.md, corpus.json            the ledger's entries; what was built (written last)

A record is `{"id", "image" or "video", "conversations": [{"from", "value"}, ...], "kind", "question_type", "licence",
"attribution"}`. An instruction record asks up to four questions about its picture (`vedere.data.build.turns`), a third of
them and all held-out records ask one. Deterministic in `seed` and the shares, whatever the number of workers, for one set of
sources, typefaces and library versions. Held-out pictures whose bytes occur in training are left out (boxes of NLVR repeat),
and overlapping source files are an error.

Cost: 1 to 7 ms and 3 to 20 kB a picture, clips most; 60,000 instruction records of all kinds took 184 s of one core.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import PIL

from vedere.config import nearest
from vedere.data.build import (
    captions,
    charts,
    clips,
    documents,
    drawings,
    easy_vqa,
    emoji,
    garments,
    handwriting,
    nlvr,
    pairs,
    scene_questions,
    words,
)
from vedere.data.build.blind import blind_accuracy, read_records
from vedere.data.build.blocks import Drawn, blocks_of, draw_all
from vedere.data.build.ledger import page
from vedere.data.build.record import (
    CLIP_PROMPTS,
    LABEL_PROMPTS,
    PAIR_PROMPTS,
    STAGES,
    Ask,
    Kind,
    Medium,
    Split,
    Stage,
    stream,
)
from vedere.data.build.turns import choose_turns
from vedere.data.build.typefaces import all_typefaces
from vedere.errors import ConfigError, PackageError, RecordError

CORPUS_VERSION = 1
KINDS: tuple[Kind, ...] = (
    scene_questions.KIND,
    words.KIND,
    documents.KIND,
    drawings.KIND,
    charts.KIND,
    pairs.KIND,
    clips.KIND,
    garments.KIND,
    nlvr.BOXES,
    nlvr.NLVR,
    handwriting.KIND,
    captions.KIND,
    emoji.KIND,
    easy_vqa.KIND,
)
HELDOUT_RECORDS = 400
SPARE_HELDOUT = 200
"""Held-out pictures may be dropped, so a few more are drawn than are wanted."""
SINGLE_SHARE = 1 / 3
"""Share of the instruction records that have one question."""
MAX_SPARE = 3
_DESCRIBE = (
    "Describe the picture.",
    "Describe the picture.",
    "Describe this picture in a sentence.",
    "What do you see?",
)
_PROMPTS: dict[Medium, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "picture": (LABEL_PROMPTS, _DESCRIBE),
    "pictures": (PAIR_PROMPTS, PAIR_PROMPTS),
    "video": (CLIP_PROMPTS, CLIP_PROMPTS),
}
"""What S1.1 and S1.2 ask, by what is shown."""


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


def _shared(kinds: Sequence[Kind], shares: Mapping[str, float]) -> list[Kind]:
    """Give the kinds the shares that were asked for."""
    built = {kind.name: kind for kind in kinds}
    for name, share in shares.items():
        if name not in built:
            raise ConfigError(
                f"a share is given for kind '{name}'{nearest(name, built)}, which is not built (built: {', '.join(built)})"
            )
        if not 0 < share < math.inf:
            raise ConfigError(f"share {share} of kind '{name}'; expected a number > 0 (name kinds to leave others out)")
    return [replace(kind, share=shares.get(kind.name, kind.share)) for kind in kinds]


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

    def _files(self, kind: Kind, split: Split, drawn: Drawn, number: int) -> list[str] | None:
        """Write the files of one item and return their names; None if the held-out item is known already."""
        if split == "heldout":
            if drawn.key and drawn.key in self._keys.get(kind.name, ()):
                raise RecordError(
                    f"picture {number} of kind '{kind.name}' ({drawn.key}) is in training and held out; "
                    "the source's splits must not share files"
                )
            if drawn.digest in self._hashes:
                self.dropped[kind.name] = self.dropped.get(kind.name, 0) + 1
                return None
        self._hashes.add(drawn.digest)
        if split == "train" and drawn.key:
            self._keys.setdefault(kind.name, set()).add(drawn.key)
        folder, ending = ("videos", "mp4") if drawn.medium == "video" else ("images", "jpg")
        names = [
            f"{folder}/{kind.name}/{split}/{number:06d}{f'-{place}' if len(drawn.files) > 1 else ''}.{ending}"
            for place in range(1, len(drawn.files) + 1)
        ]
        for name, data in zip(names, drawn.files, strict=True):
            path = self.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.licences.add(drawn.licence)
        self.advance()
        return names

    def _written(
        self, kind: Kind, split: Split, count: int, items: Iterable[Drawn]
    ) -> Iterator[tuple[int, list[str], Drawn]]:
        number = 0
        for drawn in items:
            if number == count:
                return
            names = self._files(kind, split, drawn, number)
            if names is not None:
                yield number, names, drawn
                number += 1

    def train(self, kind: Kind, count: int, target: int, items: Iterable[Drawn]) -> None:
        """Write the training pictures of a kind and its records of all stages."""
        rows: dict[Stage, list[dict[str, Any]]] = {stage: [] for stage in STAGES}
        spare: list[dict[str, Any]] = []
        made = 0
        # Where pictures give further records, which have one question each, fewer first records need to be single.
        single_share = max(0.0, 1 - (1 - SINGLE_SHARE) * kind.per_picture)
        for number, names, drawn in self._written(kind, "train", count, items):
            rng = stream(self.seed, kind.name, "records", number)
            naming, describing = _PROMPTS[drawn.medium]
            label = Ask(question=rng.choice(naming), answer=rng.choice(drawn.labels), question_type="label")
            sentence = Ask(question=rng.choice(describing), answer=rng.choice(drawn.captions), question_type="caption")
            rows["concept"].append(_record(kind, drawn, names, [label]))
            rows["semantic"].append(_record(kind, drawn, names, [sentence]))
            rows["alignment"].append(_record(kind, drawn, names, [rng.choice(drawn.alignment)]))
            turns, left = choose_turns(drawn.asks, rng, rng.random() < single_share)
            rows["instruction"].append(_record(kind, drawn, names, turns))
            spare += [_record(kind, drawn, names, [ask]) for ask in left[:MAX_SPARE]]
            made += 1
        extra = max(0, target - made)
        stream(self.seed, kind.name, "spare").shuffle(spare)
        rows["instruction"] += spare[:extra]
        self.pictures["train"][kind.name] = made
        for stage, stage_rows in rows.items():
            # A repeat factor below 1 keeps the first lines of a file, so the order must carry no meaning.
            stream(self.seed, kind.name, stage).shuffle(stage_rows)
            self._write(stage, kind, stage_rows)

    def heldout(self, kind: Kind, wanted: int, items: Iterable[Drawn]) -> None:
        """Write the held-out pictures and questions of a kind: one question each where there are enough pictures."""
        written = list(self._written(kind, "heldout", wanted, items))
        each = 1 if not written else math.ceil(wanted / len(written))
        rows = [
            _record(kind, drawn, names, [ask])
            for turn in range(5)
            for _, names, drawn in written
            for ask in drawn.asks[turn : turn + 1]
            if turn < each
        ][:wanted]
        self.pictures["heldout"][kind.name] = len(written)
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


def _record(kind: Kind, drawn: Drawn, files: Sequence[str], turns: Iterable[Ask]) -> dict[str, Any]:
    asks = list(turns)
    conversations: list[dict[str, str]] = []
    for ask in asks:
        conversations.append({"from": "human", "value": ask.question})
        conversations.append({"from": "gpt", "value": ask.answer})
    medium = "video" if drawn.medium == "video" else "image"
    conversations[0]["value"] = f"<{medium}>\n" * len(files) + conversations[0]["value"]
    return {
        "id": "",
        medium: files[0] if len(files) == 1 else list(files),
        "conversations": conversations,
        "kind": kind.name,
        "question_type": "+".join(ask.question_type for ask in asks),
        "licence": drawn.licence,
        "attribution": drawn.attribution,
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
    shares: Mapping[str, float] | None = None,
    workers: int = 1,
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
        shares: kind -> share of the instruction records that replaces the kind's own; shares are relative to each
            other over the kinds that are built.
        workers: processes that draw; the corpus does not depend on their number.
        heldout: held-out records per kind, as far as the data allow.
        progress: show a progress bar on standard error.

    Returns:
        Counts, skipped kinds and blind baselines; the same data stands in `corpus.json`.

    Raises:
        ConfigError: for an unknown kind, a missing source of a kind asked for by name, a share of a kind that is not
            built, a size or number of workers that is too small, or an output folder that is not empty.
        RecordError: when a source holds a picture under a licence that is not allowed, or in both splits.
    """
    chosen, skipped = select_kinds(kinds, sources)
    chosen = _shared(chosen, shares or {})
    if workers < 1:
        raise ConfigError(f"workers {workers}; expected at least 1")
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
    train = [blocks_of(kind, "train", counts[kind.name], seed, _folder(kind, sources)) for kind in chosen]
    unseen = [blocks_of(kind, "heldout", heldout + SPARE_HELDOUT, seed, _folder(kind, sources)) for kind in chosen]
    drawn = draw_all([block for blocks in (*train, *unseen) for block in blocks], workers)
    with _progress(sum(counts.values()) + heldout * len(chosen), progress) as advance:
        writer = _Writer(out, seed, advance)
        for kind, blocks in zip(chosen, train, strict=True):
            items = chain.from_iterable(islice(drawn, len(blocks)))
            writer.train(kind, counts[kind.name], targets[kind.name], items)
        for kind, blocks in zip(chosen, unseen, strict=True):
            pending = islice(drawn, len(blocks))
            writer.heldout(kind, heldout, chain.from_iterable(pending))
            for _ in pending:  # blocks that were not needed are not the next kind's
                pass
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
