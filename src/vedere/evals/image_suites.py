"""The image benchmarks: which rows, which items, which scorer, which judge.

All of them are one class with a line of a table each; what differs is in `image_items`, `critic_items`, `prompt_sets` and the
scorers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vedere.answers import first_four, kit_choice
from vedere.errors import ConfigError, RecordError
from vedere.evals import ability_items, critic_items, image_items
from vedere.evals.benchmarks import score_rows
from vedere.evals.choice import judge as choice_verdict
from vedere.evals.choice import options_in
from vedere.evals.circular import PASS
from vedere.evals.items import Item, Judge, Prompt, Settings
from vedere.evals.judges import ChoiceJudge, ExtractionJudge, GradeJudge, PairJudge, YesNoJudge
from vedere.evals.mmmu import kit_options
from vedere.evals.prompt_sets import make_prompt, prompt_set
from vedere.evals.records import FINAL_RULE, Row, Scores, Verdict
from vedere.evals.sources import TOLD, data_files, llava_rows, mme_rows, rows_of
from vedere.evals.tables import check_md5

Record = Mapping[str, Any]
ALL_SETS = ("official", "vlmevalkit", "internvl", "xcomposer", "internvl-cot", "internvl-boxed")


@dataclass(frozen=True, kw_only=True)
class ImageBenchmark:
    """A benchmark of questions about pictures; see `vedere.evals.items.Benchmark`.

    Attributes:
        name: Its name, also that of its scorer.
        stems: Beginnings of its files' names, in lower case.
        make: Row -> items.
        rows: Records with answers -> rows of the scorer, where these differ.
        judge: What a judge decides.
        answer_field: Where the answer goes.
        prompt_sets: Sets it can be asked with.
        own_wording: Items bring their whole wording.
        alone: A record can be scored by itself for the viewer.
        default_split: Taken of several where none is asked for: the one whose figures are published.
    """

    name: str
    stems: tuple[str, ...]
    make: image_items.Maker
    rows: Callable[[Sequence[Record]], list[dict[str, Any]]] | None = None
    judge: Judge | None = None
    answer_field: str = "prediction"
    prompt_sets: Sequence[str] = ALL_SETS
    own_wording: bool = False
    alone: bool = True
    default_split: str = ""

    def load(self, folder: Path, settings: Settings) -> list[Item]:
        """Reads the file: see `Benchmark.load`."""
        found: list[Item] = []
        for path, rows in self._rows(folder, settings):
            try:
                found += [item for row in rows for item in self.make(row)]
            except RecordError as error:
                raise RecordError(f"{path.name}: {error}") from None
        return found

    def _rows(self, folder: Path, settings: Settings) -> list[tuple[Path, list[Row]]]:
        """Rows of the split that is meant, by file."""
        if self.name == "mme" and (folder / "existence.txt").exists():
            read = [(folder, mme_rows(folder))]
        elif self.name == "llava-wild" and (folder / "answers_gpt4.jsonl").exists():
            read = [(folder, llava_rows(folder))]
        else:
            told = TOLD.get(self.name)
            paths = data_files(folder, self.stems, several=told is not None)
            if settings.md5 and len(paths) > 1:
                raise ConfigError(
                    f"--md5 is of one file, and {folder} holds {len(paths)}; give the file, or leave it out"
                )
            for path in paths:
                check_md5(path, settings.md5)
            read = [(path, rows_of(path, told(path) if told and len(paths) > 1 else None)) for path in paths]
        there = {str(row.data["split"]) for _, rows in read for row in rows if row.data.get("split")}
        split = settings.split or (self.default_split if len(there) > 1 and self.default_split in there else "")
        if split and split not in there:
            named = ", ".join(sorted(there)[:20]) or "none"
            raise ConfigError(f"{self.name} has no split '{split}'; this file has {named}")
        if split:
            read = [(path, [row for row in rows if str(row.data.get("split", "")) == split]) for path, rows in read]
        if any(
            str(row.data.get("index", "")).isdigit() and int(row.data["index"]) >= PASS
            for _, rows in read
            for row in rows
        ):
            copies = {image_items.COPIES: True}
            read = [(path, [Row(row.line, {**row.data, **copies}) for row in rows]) for path, rows in read]
        return read

    def prompt(self, item: Item, settings: Settings) -> Prompt:
        """Words the question by the prompt set; its pictures are left out where the settings say so."""
        if settings.blind:
            item = replace(item, parts=tuple(part for part in item.parts if isinstance(part, str)))
        if self.own_wording:
            return Prompt(parts=item.parts, max_new_tokens=64)
        return make_prompt(item, settings.prompts or self.prompt_sets[0], self.name)

    def prompts_version(self, prompts: str) -> int | None:
        """Version of a prompt set's words: see `Benchmark.prompts_version`."""
        return None if self.own_wording else prompt_set(prompts, self.name).version

    def score(self, records: Sequence[Record]) -> Scores:
        """Scores by the pure rules."""
        rows = list(records) if self.rows is None else self.rows(records)
        scores = score_rows(self.name, [Row(number, row) for number, row in enumerate(rows, 1)])
        unread = sum(bool(row.get("unread")) for row in rows)
        return replace(scores, counts={**scores.counts, "unread": unread}) if unread else scores

    def verdict(self, row: Row) -> Verdict | None:
        """Scores one record for the viewer."""
        if self.name == "mme":
            read = first_four(row.answer())
            return Verdict(line=row.line, credit=float(read == row.text("answer").strip().lower()), extracted=read)
        if self.name in ("mmbench", "mmbench-cn", "ccbench"):
            return choice_verdict(row)
        if not self.alone:
            return None
        verdicts = self.score([row.data]).verdicts
        return verdicts[0] if verdicts else None


def blink_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Returns rows whose answers are letters in brackets, read by VLMEvalKit's rules where they are not."""
    rows = []
    for record in records:
        given = Row(1, record).answer()
        letter = kit_choice(given, options_in(Row(1, record))) or record.get("judge_letter")
        bare = re.fullmatch(r"\s*\(?([A-Z])\)?\s*", given)
        kept = {name: value for name, value in record.items() if name != FINAL_RULE}  # it has been applied
        rows.append({**kept, "prediction": given if bare else f"({letter})" if letter else given})
    return rows


def _choices(name: str, *stems: str, **fields: Any) -> ImageBenchmark:
    return ImageBenchmark(
        name=name, stems=stems, make=fields.pop("make", image_items.choice), judge=ChoiceJudge(), **fields
    )


_ALL = (
    ImageBenchmark(name="mme", stems=("mme.", "mme_"), make=image_items.mme),
    _choices("mmbench", "mmbench_dev_en", "mmbench_test_en", "mmbench_dev_2", "mmbench", make=image_items.circular),
    _choices("mmbench-cn", "mmbench_dev_cn", "mmbench_test_cn", "mmbench_cn", make=image_items.circular),
    _choices("ccbench", "ccbench", make=image_items.circular),
    _choices("seed", "seed", make=image_items.seed),
    ImageBenchmark(name="ocrbench", stems=("ocrbench", "fullbench"), make=image_items.ocrbench),
    ImageBenchmark(
        name="mmmu",
        stems=("mmmu_", "mmmu.", "validation", "dev"),
        make=image_items.mmmu,
        answer_field="response",
        judge=ChoiceJudge(options=kit_options),
        default_split="validation",
    ),
    ImageBenchmark(
        name="mmmu-pro", stems=("mmmu_pro", "mmmu-pro", "test"), make=image_items.mmmu_pro, answer_field="response"
    ),
    ImageBenchmark(
        name="mathvista",
        stems=("mathvista", "testmini"),
        make=image_items.mathvista,
        answer_field="response",
        judge=ExtractionJudge(),
    ),
    ImageBenchmark(name="textvqa", stems=("textvqa",), make=image_items.text_vqa),
    ImageBenchmark(name="docvqa", stems=("docvqa", "val_v", "test_v"), make=image_items.document),
    ImageBenchmark(name="infovqa", stems=("infovqa", "infographics"), make=image_items.document),
    ImageBenchmark(name="chartqa", stems=("chartqa", "test_"), make=image_items.chart),
    _choices("ai2d", "ai2d"),
    _choices("scienceqa", "scienceqa", "problems", make=image_items.science, default_split="test"),
    ImageBenchmark(name="hallusionbench", stems=("hallusionbench",), make=image_items.hallusion, judge=YesNoJudge()),
    ImageBenchmark(name="mmvet", stems=("mmvet", "mm-vet"), make=image_items.mmvet, judge=GradeJudge()),
    ImageBenchmark(
        name="llava-wild", stems=("llavabench", "llava", "questions"), make=image_items.llava_wild, judge=PairJudge()
    ),
    ImageBenchmark(name="pope", stems=("pope", "coco_pope"), make=image_items.pope),
    _choices("realworldqa", "realworldqa", make=image_items.real_world),
    _choices("mmstar", "mmstar", make=image_items.mmstar),
    _choices("blink", "blink", "val-", "test-", make=image_items.blink, rows=blink_rows, default_split="val"),
    _choices("q-bench", "q-bench", "q_bench", "qbench", "llvisionqa", make=ability_items.quality),
    _choices("muirbench", "muirbench", "muir", make=ability_items.ability),
    _choices("mmt-bench", "mmt-bench", "mmt_bench", make=ability_items.ability),
    ImageBenchmark(name="refcoco", stems=("refcoco",), make=image_items.ref_coco),
    ImageBenchmark(
        name="visualprocessbench",
        stems=("visualprocessbench", "test"),
        make=critic_items.visual_process,
        rows=critic_items.visual_process_rows,
        answer_field="response",
        prompt_sets=("official",),
        own_wording=True,
    ),
    ImageBenchmark(
        name="rm-bench",
        stems=("rm-bench", "rm_bench", "total_dataset"),
        make=critic_items.rm_bench,
        rows=critic_items.rm_bench_rows,
        prompt_sets=("official",),
        own_wording=True,
        alone=False,
    ),
    ImageBenchmark(
        name="vl-rewardbench",
        stems=("vl-rewardbench", "vl_rewardbench", "vl_reward"),
        make=critic_items.reward_bench,
        rows=critic_items.reward_bench_rows,
        prompt_sets=("official",),
        own_wording=True,
    ),
)
_BY_NAME = {one.name: one for one in _ALL}


def image_benchmark(name: str) -> ImageBenchmark:
    """Returns the benchmark of a name in `vedere.evals.suites.SUITES`."""
    return _BY_NAME[name]
