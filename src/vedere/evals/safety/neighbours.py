"""Sets beside MIS (arXiv 2501.18533, sec. 5): FigStep, MM-SafetyBench, JailbreakV, SIUO, MSSBench, VLSBench, VLGuard.

Each is read from the files as published, below one root. What differs between them is data: where the file is, which fields
hold what, whether a good answer declines or helps, what the judge decides. Three of them hold harmless requests too
(MSSBench's safe situations, VLGuard's safe pictures with safe instructions), which is where over-refusal is measured.

No text of a set is part of this package. FigStep's pictures carry the request and its text is one fixed carrier, which the
reader brings in a file ``carrier.txt`` in the root. MSSBench and SIUO have two parts each and modules of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vedere.config import nearest
from vedere.errors import ConfigError, RecordError
from vedere.evals.safety import mssbench, siuo
from vedere.evals.safety.records import (
    Request,
    check_consent,
    check_ids,
    file_of,
    id_of,
    image_of,
    read_table,
    rows_of,
    text_of,
    wording_of,
)

Rows = Callable[[Path], Iterator[Request]]
FIGURE_KINDS = ("SD", "SD_TYPO", "TYPO")
"""MM-SafetyBench's pictures of a request: generated, generated with its words, words alone."""


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A set.

    Attributes:
        read: Yields its requests from a root.
        size: Requests in the published file; None where releases differ.
        figure: What is reported of it.
        harmless: It holds harmless requests of its own.
    """

    read: Rows
    size: int | None
    figure: str
    harmless: bool = False


def _figstep(root: Path) -> Iterator[Request]:
    text = wording_of(root, "carrier.txt", "the text that goes with every picture of FigStep").strip()
    path = file_of(root, "safebench.csv", "data/question/safebench.csv", "question/safebench.csv")
    for where, row in rows_of(path):
        topic, task = id_of(row, ("category_id",), where), id_of(row, ("task_id",), where)
        names = [
            f"{folder}query_ForbidQI_{topic}_{task}_6.png" for folder in ("images/SafeBench/", "data/images/SafeBench/")
        ]
        name = next((name for name in names if os.path.isfile(root / name)), names[0])
        yield Request(
            set="figstep",
            id=f"{topic}-{task}",
            category=text_of(row, ("category_name", "category_id"), where),
            question=text,
            images=(image_of(root, name, f"{path.name} id {topic}-{task}"),),
            rubric="unsafe",
        )


def _mm_safetybench(root: Path) -> Iterator[Request]:
    folder = next(
        (root / name for name in ("processed_questions", "data/processed_questions") if (root / name).is_dir()), None
    )
    files = sorted(folder.glob("*.json")) if folder else []
    if not files:
        raise RecordError(f"{root} has no processed_questions/*.json; expected MM-SafetyBench as published")
    for path in files:
        for where, row in rows_of(path):
            number = id_of(row, ("id",), where)
            for kind in FIGURE_KINDS:
                fields = ("Rephrased Question(SD)",) if kind == "SD" else ("Rephrased Question",)
                names = [f"{part}imgs/{path.stem}/{kind}/{number}.jpg" for part in ("", "data/")]
                name = next((name for name in names if os.path.isfile(root / name)), names[0])
                yield Request(
                    set="mm-safetybench",
                    id=f"{path.stem}/{number}/{kind}",
                    category=path.stem,
                    sub_category=kind,
                    question=text_of(row, fields, where),
                    images=(image_of(root, name, where),),
                    cluster=f"{path.stem}/{number}",
                    rubric="unsafe",
                )


def _jailbreakv(root: Path) -> Iterator[Request]:
    path = file_of(root, "mini_JailBreakV_28K.csv", "JailBreakV_28k/mini_JailBreakV_28K.csv", "JailBreakV_28K.csv")
    for where, row in rows_of(path):
        yield Request(
            set="jailbreakv",
            id=id_of(row, ("id",), where),
            category=text_of(row, ("policy",), where),
            sub_category=str(row.get("format") or ""),
            question=text_of(row, ("jailbreak_query",), where),
            images=(image_of(path.parent, text_of(row, ("image_path",), where), where),),
            rubric="unsafe",
        )


def _vlsbench(root: Path) -> Iterator[Request]:
    path = file_of(root, "data.json", "vlsbench.json", "vlsbench_data.json")
    for where, row in rows_of(path):
        yield Request(
            set="vlsbench",
            id=id_of(row, ("instruction_id", "id"), where),
            category=text_of(row, ("category",), where),
            sub_category=str(row.get("sub_category") or ""),
            question=text_of(row, ("instruction", "question"), where),
            images=(image_of(root, text_of(row, ("image_path", "image"), where), where),),
            rubric="behaviour",
        )


def _vlguard(root: Path) -> Iterator[Request]:
    """Safe pictures with a safe instruction (help) and an unsafe one (decline); unsafe pictures (decline)."""
    path = file_of(root, "test.json")
    for number, row in enumerate(read_table(path)):
        where = f"{path.name} item {number}"
        identifier = id_of(row, ("id",), where)
        turns = row.get("instr-resp")
        if not isinstance(turns, list) or not isinstance(row.get("safe"), bool):
            raise RecordError(f"{where} has no 'safe' and list 'instr-resp'; is it VLGuard's test file?")
        name = text_of(row, ("image",), where)
        if not os.path.isfile(root / name):
            name = f"test/{name}"
        picture = image_of(root, name, where)
        category = str(row.get("harmful_category") or "safe picture")
        kinds = {"safe_instruction": "help", "unsafe_instruction": "decline", "instruction": "decline"}
        for turn in turns:
            for field, expected in kinds.items():
                if not isinstance(turn, dict) or not isinstance(turn.get(field), str):
                    continue
                part = {"safe_instruction": "safe-safe", "unsafe_instruction": "safe-unsafe", "instruction": "unsafe"}
                yield Request(
                    set="vlguard",
                    id=f"{identifier}/{part[field]}",
                    category=category,
                    sub_category=part[field],
                    question=turn[field],
                    images=(picture,),
                    expected="help" if expected == "help" else "decline",
                    cluster=identifier,
                    rubric="behaviour",
                )


_BOTH_WAYS = "accuracy where help is right, and where declining is"
NEIGHBOURS: dict[str, Neighbour] = {
    "figstep": Neighbour(read=_figstep, size=500, figure="ASR"),
    "mm-safetybench": Neighbour(read=_mm_safetybench, size=5040, figure="ASR by scenario"),
    "jailbreakv": Neighbour(read=_jailbreakv, size=None, figure="ASR (the mini set has 280)"),
    "siuo": Neighbour(read=siuo.generation, size=167, figure="safe rate, effective rate"),
    "siuo-choice": Neighbour(read=siuo.choice, size=167, figure="accuracy of the chosen letters"),
    "mssbench": Neighbour(read=mssbench.chat, size=None, figure=_BOTH_WAYS, harmless=True),
    "mssbench-embodied": Neighbour(read=mssbench.embodied, size=None, figure=_BOTH_WAYS, harmless=True),
    "vlsbench": Neighbour(read=_vlsbench, size=None, figure="safe rate: refused or warned"),
    "vlguard": Neighbour(
        read=_vlguard, size=1558, figure="ASR on unsafe parts, helpfulness on safe-safe", harmless=True
    ),
}
"""The sets by name; sizes as MIS and the sets' papers give them."""


def load_neighbour(root: Path | str, name: str, *, consent: bool = False, complete: bool = True) -> list[Request]:
    """Reads a set.

    Raises:
        ConfigError: no consent, or an unknown set.
        RecordError: files, fields, pictures or number of requests are not as published; no text is in the message.
    """
    check_consent(consent)
    if name not in NEIGHBOURS:
        raise ConfigError(f"unknown set '{name}'{nearest(name, NEIGHBOURS)} (sets: {', '.join(NEIGHBOURS)})")
    root = Path(root)
    requests = list(NEIGHBOURS[name].read(root))
    size = NEIGHBOURS[name].size
    if complete and size is not None and len(requests) != size:
        raise RecordError(
            f"{root} gives {len(requests)} requests, {name} has {size}; take the published files, or read a part of them on "
            "purpose: complete=False (--partial)"
        )
    check_ids(requests)
    return requests
