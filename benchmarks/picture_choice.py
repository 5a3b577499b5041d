"""Does a caption find its photograph, and does the model choose better than the order of the search?

    python benchmarks/picture_choice.py --pictures FOLDER [--captions FILE] [--pairs FILE] [--model mini] [--encoder FOLDER]

FOLDER holds photographs and ``captions.jsonl`` with several captions each (COCO's form: id, file, captions). The gallery knows
the first caption of every picture; the queries are the others, and Chinese translations of the second for 60 of them
(``queries/coco_zh.jsonl``). ``--captions`` names more captions without pictures (id, captions): a larger gallery of texts.
``--pairs`` names English-Chinese sentences (tab separated): the Chinese one has to find the English one, and what is said there
every day should find no photograph. ``--model`` chooses
among the four best candidates that retrieval found, wherever the right one is among them.

Equality first: the database finds what comparing all vectors finds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, store

from vedere.compose.article import Article, Illustration, Paragraph
from vedere.compose.encoders import Encoder, open_encoder
from vedere.compose.gallery import FolderGallery, GalleryConfig
from vedere.compose.prompts import Brief
from vedere.compose.steps import Draft, Model, Select

QUERIES = Path(__file__).parent / "queries" / "coco_zh.jsonl"
DEPTHS = (1, 5)
SIMILARITIES = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Objects of a jsonl file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def recall(gallery: np.ndarray[Any, Any], queries: np.ndarray[Any, Any], right: list[int]) -> dict[str, float]:
    """Share of queries whose right row is among the best."""
    scores = queries @ gallery.T
    better = (scores > scores[np.arange(len(right)), right][:, None]).sum(axis=1)
    return {f"recall@{depth}": round(float((better < depth).mean()), 4) for depth in DEPTHS} | {"queries": len(right)}


def bars(gallery: np.ndarray[Any, Any], queries: np.ndarray[Any, Any], right: list[int]) -> list[dict[str, float]]:
    """What a least similarity does: right pictures that stay, and places that stay empty where the right one is missing."""
    scores = queries @ gallery.T
    own = scores[np.arange(len(right)), right]
    without = scores.copy()
    without[np.arange(len(right)), right] = -1
    best = without.max(axis=1)
    return [
        {
            "similarity": bar,
            "right_kept": round(float((own >= bar).mean()), 4),
            "empty_without_right": round(float((best < bar).mean()), 4),
        }
        for bar in SIMILARITIES
    ]


def retrieval(encoder: Encoder, rows: list[dict[str, Any]], chinese: dict[int, str]) -> dict[str, Any]:
    """Recall over one set of captions."""
    gallery = encoder.texts([row["captions"][0] for row in rows])
    texts, right = [], []
    for place, row in enumerate(rows):
        texts += row["captions"][1:]
        right += [place] * (len(row["captions"]) - 1)
    english = encoder.texts(texts)
    result: dict[str, Any] = {"gallery": len(rows), "en": recall(gallery, english, right)}
    result["en"]["bars"] = bars(gallery, english, right)
    translated = [(place, chinese[row["id"]]) for place, row in enumerate(rows) if row["id"] in chinese]
    if translated:
        vectors, places = encoder.texts([text for _, text in translated]), [place for place, _ in translated]
        result["zh"] = recall(gallery, vectors, places) | {"bars": bars(gallery, vectors, places)}
        same = [(place, rows[place]["captions"][1]) for place in places]
        result["en_same_queries"] = recall(gallery, encoder.texts([text for _, text in same]), places)
    return result


def pairs(encoder: Encoder, path: Path, most: int = 5000) -> dict[str, Any]:
    """Recall of English sentences by Chinese ones, each sentence once."""
    found: dict[str, str] = {}
    for line in path.read_text("utf-8-sig").splitlines():
        english, chinese, *_ = (line + "\t").split("\t")
        if english.strip() and chinese.strip():
            found.setdefault(english, chinese)
    once = {chinese: english for english, chinese in found.items()}
    chosen = [(english, chinese) for chinese, english in once.items()][-most:]  # the longest ones stand at the end
    gallery = encoder.texts([english for english, _ in chosen])
    return {"gallery": len(chosen)} | recall(gallery, encoder.texts([zh for _, zh in chosen]), list(range(len(chosen))))


def off_topic(encoder: Encoder, rows: list[dict[str, Any]], path: Path, count: int = 500) -> dict[str, float]:
    """Share of everyday sentences for which no photograph is similar enough, by the least similarity."""
    lines = [line.split("\t")[0] for line in path.read_text("utf-8-sig").splitlines()]
    chosen = [lines[int(place)] for place in np.linspace(len(lines) // 3, len(lines) - 1, count)]
    gallery = encoder.texts([row["captions"][0] for row in rows])
    best = (encoder.texts(chosen) @ gallery.T).max(axis=1)
    return {str(bar): round(float((best < bar).mean()), 4) for bar in SIMILARITIES}


def indexed(encoder: Encoder, rows: list[dict[str, Any]], folder: Path, place: Path) -> FolderGallery:
    """The photographs as a gallery that knows their first captions; equal to comparing all vectors."""
    captions = place / "first.jsonl"
    captions.write_text("".join(json.dumps({"file": r["file"], "caption": r["captions"][0]}) + "\n" for r in rows))
    config = GalleryConfig(captions=captions, similarity=-1.0, same_bits=-1)
    gallery = FolderGallery(folder, encoder, index=place / "index", config=config)
    gallery.update()
    vectors = encoder.texts([row["captions"][0] for row in rows])
    for row in rows[:40]:
        scores = vectors @ encoder.texts([row["captions"][1]])[0]
        expected = [rows[number]["file"] for number in np.argsort(-scores, kind="stable")[:4]]
        assert [picture.id for picture in gallery.search(row["captions"][1], 4, ())] == expected
    return gallery


def choices(
    gallery: FolderGallery, rows: list[dict[str, Any]], model: Model, style: Any, queries: dict[int, str]
) -> dict[str, Any]:
    """The choice among four candidates where the right one is among them, by the model and by the order of the search."""
    counts: Counter[str] = Counter()
    begun = time.perf_counter()
    for row in rows:
        text = queries.get(row["id"])
        if text is None:
            continue
        counts["asked"] += 1
        candidates = tuple(gallery.search(text, 4, ()))
        right = [place for place, picture in enumerate(candidates) if picture.id == row["file"]]
        if not right:
            continue
        counts["right among four"] += 1
        counts["retrieval right"] += right == [0]
        spot = Illustration(caption=text, candidates=candidates)
        article = Article(title=text, paragraphs=(Paragraph(text=text, illustration=spot),))
        made = Select(model, style)(Draft(brief=Brief(title=text), article=article))
        ((_, chosen),) = made.article.spots()
        assert chosen.selected is not None
        counts["model right"] += chosen.selected == right[0]
        counts["model answered with an option"] += chosen.chosen_by == "model"
        counts["model right where it answered with an option"] += (
            chosen.chosen_by == "model" and chosen.selected == right[0]
        )
    return dict(counts) | {"seconds": round(time.perf_counter() - begun, 1)}


def draw(result: dict[str, Any], path: Path) -> None:
    """Recall by encoder and language, and the choice among four."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), width_ratios=(3, 2))
    names = list(result["encoders"])
    groups = [
        ("photographs", key, language) for key in ("recall@1", "recall@5") for language in ("en_same_queries", "zh")
    ]
    words = {"en_same_queries": "English", "zh": "Chinese"}
    for number, name in enumerate(names):
        heights = [result["encoders"][name][part][language][key] for part, key, language in groups]
        places = [place + (number - (len(names) - 1) / 2) * 0.35 for place in range(len(groups))]
        drawn = left.bar(places, heights, 0.33, label=name)
        left.bar_label(drawn, [f"{height:.0%}" for height in heights], fontsize=8)
    left.set_xticks(range(len(groups)), [f"{key}\n{words[language]}" for _, key, language in groups], fontsize=8)
    left.set_ylim(0, 1.1)
    left.set_title(
        f"another caption finds its photograph ({result['encoders'][names[0]]['photographs']['gallery']})", fontsize=9
    )
    left.legend(fontsize=8)
    chosen = result.get("choice", {})
    if chosen:
        among = chosen["right among four"]
        shares = {
            "by chance": 0.25,
            "order of\nthe search": chosen["retrieval right"] / among,
            f"{result['model']}\n(or, failing,\nthe order)": chosen["model right"] / among,
        }
        drawn = right.bar(list(shares), list(shares.values()), 0.6, color=["#bbb", "#579", "#c84"])
        right.bar_label(drawn, [f"{share:.0%}" for share in shares.values()], fontsize=8)
        right.set_ylim(0, 1.1)
        right.tick_params(labelsize=8)
        right.set_title(f"right one of four candidates ({among} queries)", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures, writes, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--captions", type=Path)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--model", default="", help="also let this model choose")
    parser.add_argument("--choices", type=int, default=0, help="queries that the model chooses for; 0: all")
    parser.add_argument("--encoder", nargs="*", default=["multilingual", "minilm"])
    options = parser.parse_args()
    rows = [row for row in rows_of(options.pictures / "captions.jsonl") if len(row["captions"]) > 1]
    chinese = {row["id"]: row["caption"] for row in rows_of(QUERIES)}
    result: dict[str, Any] = {"encoders": {}, "model": options.model}
    for name in options.encoder:
        encoder = open_encoder(name)
        encoder.texts(["warm"])
        begun = time.perf_counter()
        encoder.texts([row["captions"][0] for row in rows] * 4)
        speed = 4 * len(rows) / (time.perf_counter() - begun)
        found: dict[str, Any] = {"captions_a_second": round(speed), "photographs": retrieval(encoder, rows, chinese)}
        if options.captions:
            more = [
                row | {"captions": row["captions"][:2]} for row in rows_of(options.captions) if len(row["captions"]) > 1
            ]
            found["texts"] = retrieval(encoder, more, chinese)
        if options.pairs:
            found["pairs"] = pairs(encoder, options.pairs)
            found["off_topic"] = off_topic(encoder, rows, options.pairs)
        result["encoders"][Path(name).name] = found
        print(name, json.dumps(found))
    if options.model:
        from vedere.compose.cast import open_cast

        cast = open_cast(options.model)
        second = {row["id"]: row["captions"][1] for row in rows[: options.choices or None]}
        with tempfile.TemporaryDirectory() as place:
            gallery = indexed(open_encoder(options.encoder[0]), rows, options.pictures, Path(place))
            result["choice"] = choices(gallery, rows, cast.model, cast.style, second)
        print(result["choice"])
    store("picture_choice", result)
    draw(result, RESULTS / "picture_choice.png")


if __name__ == "__main__":
    main()
