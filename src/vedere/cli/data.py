"""``vedere data build | recaption | show | check``: make a corpus, caption pictures, look at one, find its bad records."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vedere.cli.group import Commands, run_group
from vedere.cli.output import columns, note, print_json
from vedere.cli.recaption import RecaptionOptions, recaption
from vedere.config import nearest
from vedere.errors import ConfigError, VedereError

if TYPE_CHECKING:
    from vedere.data.mixture import Part
    from vedere.data.sample import Sample
    from vedere.train.run import RunConfig
    from vedere.train.stages import StageConfig

CORPORA = ("mini",)
_DRAWS = 20_000  # of the simulated stream behind the fill of packs


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Build an open training corpus."""

    corpus: Annotated[str, tyro.conf.Positional]
    """Name of the corpus: mini."""
    out: Path
    """Folder to write; absent or empty."""
    sources: Path | None = None
    """Folder with the sources' folders; kinds of pictures whose source is missing are skipped."""
    size: int = 30_000
    """Instruction records of all kinds together."""
    seed: int = 0
    """Everything is drawn from it."""
    kinds: tuple[str, ...] = ()
    """Kinds of pictures to build; by default all that can be built."""
    share: tuple[str, ...] = ()
    """Shares of the records that replace the kinds' own, relative to each other: words=0.3 scenes=0.4."""
    workers: int = 1
    """Processes that draw; the corpus does not depend on their number."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """What a corpus holds, and how it fills packs."""

    meta: Annotated[Path, tyro.conf.Positional]
    """Meta JSON, a folder with meta.json, or a mix file of XComposer (data.txt)."""
    given_num: bool = False
    """Numbers of a mix file are thousands of samples, as with the released script's switch; else shares of the files."""
    samples: int = 200
    """Samples of each data set that are prepared for the statistics, evenly spread."""
    recipe: str = "mono-mini"
    """Tokenizer, template, tiling and pack limits are this recipe's."""
    stage: str = ""
    """Stage whose limits count; by default the recipe's first."""
    language_model: str = ""
    """Folder of the language model whose tokenizer counts; by default the recipe's."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Read every record and its media, and list what is bad with file and line."""

    meta: Annotated[Path, tyro.conf.Positional]
    """Meta JSON, a folder with meta.json, or a mix file of XComposer (data.txt)."""
    given_num: bool = False
    """Numbers of a mix file are thousands of samples, as with the released script's switch; else shares of the files."""
    quick: bool = False
    """Read only the headers of pictures instead of decoding them."""
    limit: int = 50
    """Most bad records that are listed; all are counted."""
    json: bool = False
    """Print one JSON object instead of text."""


def main(argv: list[str]) -> int:
    """Runs ``vedere data``."""
    commands: Commands = {
        "build": (BuildOptions, build),
        "recaption": (RecaptionOptions, recaption),
        "show": (ShowOptions, show),
        "check": (CheckOptions, check),
    }
    return run_group("data", commands, argv)


def build(options: BuildOptions) -> int:
    """Builds a corpus."""
    if options.corpus not in CORPORA:
        raise ConfigError(
            f"unknown corpus '{options.corpus}'{nearest(options.corpus, CORPORA)} (corpora: {', '.join(CORPORA)})"
        )
    from vedere.data.build import build_corpus

    summary = build_corpus(
        options.out,
        sources=options.sources,
        size=options.size,
        seed=options.seed,
        kinds=options.kinds or None,
        shares=_shares(options.share),
        workers=options.workers,
    )
    for kind, reason in summary.skipped.items():
        note(f"skipped {kind}: {reason}")
    if options.json:
        print_json(summary.as_json())
        return 0
    rows = [("kind", *summary.records, "pictures", "blind accuracy")]
    for kind in sorted({kind for counts in summary.records.values() for kind in counts}):
        counts = [str(summary.records[stage].get(kind, 0)) for stage in summary.records]
        pictures = sum(split.get(kind, 0) for split in summary.pictures.values())
        blind = summary.blind.get(kind)
        rows.append((kind, *counts, str(pictures), "" if blind is None else f"{blind:.0%}"))
    print("\n".join(columns(rows)))
    print(f"written to {summary.out}")
    return 0


def _shares(texts: Sequence[str]) -> dict[str, float]:
    """``words=0.3`` as a share of a kind."""
    shares: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            if not equals or name in shares:
                raise ValueError
            shares[name] = float(number)
        except ValueError:
            raise ConfigError(
                f"--share '{text}'; expected KIND=NUMBER, each kind once: --share words=0.3 scenes=0.4"
            ) from None
    return shares


def _open(options: ShowOptions | CheckOptions) -> tuple[Part, ...]:
    from vedere.data.mixture import open_sets

    return open_sets(options.meta, given_num=options.given_num)


def show(options: ShowOptions) -> int:
    """Counts, token lengths, fill of packs."""
    from vedere.recipes import get_recipe

    if options.samples < 1:
        raise ConfigError(f"--samples {options.samples}; expected at least 1")
    recipe = get_recipe(options.recipe)
    stage = _stage(recipe, options.stage)
    if options.language_model:
        recipe = replace(recipe, model=replace(recipe.model, language_model=options.language_model))
    parts = _open(options)
    sizes = _sizes(parts, recipe, stage, options.samples)
    found: dict[str, dict[str, Any]] = {
        part.name: {
            "records": len(part.records),
            "places": part.places,
            "weight": part.weight,
            "tokens": _spread([tokens for tokens, _ in sizes[part.name]]),
            "tiles": _spread([tiles for _, tiles in sizes[part.name]]),
        }
        for part in parts
    }
    packs = _packs(parts, sizes, stage)
    if options.json:
        print_json(
            {"meta": str(options.meta), "recipe": recipe.recipe, "stage": stage.name, "sets": found, "packs": packs}
        )
        return 0
    rows: list[tuple[str, ...]] = [
        ("data set", "records", "an epoch", "tokens: least", "median", "mean", "95 %", "most", "tiles: mean", "most")
    ]
    for name, facts in found.items():
        tokens, tiles = facts["tokens"], facts["tiles"]
        middle = [f"{tokens[key]:.0f}" for key in ("least", "median", "mean", "p95", "most")]
        rows.append(
            (name, str(facts["records"]), str(facts["places"]), *middle, f"{tiles['mean']:.1f}", f"{tiles['most']:.0f}")
        )
    print("\n".join(columns(rows)))
    print(
        f"packs of {options.recipe}, {stage.name} ({stage.pack_tokens} tokens, {stage.pack_tiles} tiles): "
        f"{packs['fill']:.1%} full, {packs['documents']:.1f} documents each, {packs['packs_an_epoch']:.0f} packs an epoch, "
        f"{packs['epochs']:.2f} epochs in {stage.steps} steps"
    )
    return 0


def _stage(recipe: RunConfig, name: str) -> StageConfig:
    stages = {stage.name: stage for stage in recipe.stages}
    if name and name not in stages:
        raise ConfigError(
            f"recipe '{recipe.recipe}' has no stage '{name}'{nearest(name, stages)} (stages: {', '.join(stages)})"
        )
    return stages[name] if name else recipe.stages[0]


def _sizes(
    parts: Sequence[Part], recipe: RunConfig, stage: StageConfig, samples: int
) -> dict[str, list[tuple[int, int]]]:
    """(tokens, tiles) of prepared samples, by data set."""
    from vedere.train.run import open_words, preparer

    prepare = preparer(recipe, stage, open_words(recipe.model, note).tokenizer)
    sizes: dict[str, list[tuple[int, int]]] = {}
    for part in parts:
        count = min(samples, len(part.records))
        documents = [
            prepare(part.records[number * len(part.records) // count], random.Random(number)) for number in range(count)
        ]
        sizes[part.name] = [(len(document.ids), document.tile_count) for document in documents]
    return sizes


def _spread(values: Sequence[int]) -> dict[str, float]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "least": ordered[0],
        "median": ordered[last // 2],
        "mean": sum(ordered) / len(ordered),
        "p95": ordered[round(0.95 * last)],
        "most": ordered[-1],
    }


def _packs(parts: Sequence[Part], sizes: dict[str, list[tuple[int, int]]], stage: StageConfig) -> dict[str, float]:
    """Fill of the packs that a stream of such sizes makes, drawn as the mixture draws."""
    from vedere.data.mixture import Mixture
    from vedere.data.packing import BinPacker, PackLimits

    packer = BinPacker[int](PackLimits(tokens=stage.pack_tokens, tiles=stage.pack_tiles))
    rng = random.Random(0)
    packs = documents = tokens = 0
    for drawn, (draw, _) in enumerate(Mixture(parts).stream()):
        name = parts[draw.dataset].name
        size, tiles = rng.choice(sizes[name])
        leaving = packer.add(size, tiles, size, name)
        if leaving is not None:
            packs, documents, tokens = packs + 1, documents + len(leaving), tokens + sum(leaving)
        if drawn >= _DRAWS and packs:
            break
    places = sum(part.places for part in parts)
    each = documents / packs
    mean = tokens / packs
    per_step = max(1.0, -(-stage.tokens_per_step // mean))
    return {
        "fill": mean / stage.pack_tokens,
        "documents": each,
        "packs_an_epoch": places / each,
        "epochs": stage.steps * per_step * each / places,
    }


def check(options: CheckOptions) -> int:
    """Reads everything; exit status 1 if something is bad."""
    parts = _open(options)
    bad: list[dict[str, str]] = []
    counts: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    for part in parts:
        for number in range(len(part.records)):
            counts["records"] += 1
            try:
                sample = part.records[number]
                licences[sample.licence or "not stated"] += 1
                for problem in _problems(sample, options.quick):
                    bad.append({"set": part.name, "where": sample.source, "problem": problem})
                counts["media"] += len(sample.media)
            except VedereError as error:
                bad.append({"set": part.name, "where": "", "problem": str(error)})
    places = {entry["where"] or entry["problem"] for entry in bad}
    if options.json:
        print_json(
            {
                "meta": str(options.meta),
                "records": counts["records"],
                "media": counts["media"],
                "licences": dict(licences),
                "bad": len(places),
                "problems": bad[: options.limit],
            }
        )
        return 1 if bad else 0
    for entry in bad[: options.limit]:
        print(f"{entry['where']}: {entry['problem']}" if entry["where"] else entry["problem"])
    if len(bad) > options.limit:
        print(f"... and {len(bad) - options.limit} more (--limit {len(bad)} lists all)")
    print(
        f"{counts['records']} records in {len(parts)} data sets, {counts['media']} pictures and videos, "
        f"licences: {', '.join(f'{name} ({count})' for name, count in licences.most_common())}; {len(places)} bad"
    )
    return 1 if bad else 0


def _problems(sample: Sample, quick: bool) -> Iterator[str]:
    """What is wrong with a sample that could be read."""
    from vedere.vision.pixels import image_size, open_image
    from vedere.vision.video import probe

    if not any(turn.role == "assistant" and turn.content.strip() for turn in sample.conversation):
        yield f"sample '{sample.name}' has no answer to learn from; drop the record"
    for ref in sample.media:
        try:
            source = ref.read() if ref.member else ref.path
            if ref.kind == "video":
                probe(source)
            elif quick:
                image_size(source)
            else:
                open_image(source)
        except VedereError as error:
            yield f"sample '{sample.name}': {ref.place + ': ' if ref.member else ''}{error}"
