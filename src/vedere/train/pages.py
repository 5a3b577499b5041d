"""Sample pages: what the model answers at each evaluation, picture beside prompt, answer beside expectation.

A loss curve cannot show that a model has learnt to say "yes" to everything; a dozen answers can. The same held-out samples are
shown every time, spread evenly over the data sets, so that two pages can be compared. The prompt is the training form of the
record up to its first trained token: exactly what the model was taught to continue.

A sample that cannot be shown is noted on the page; it never ends a run. Cost: a dozen greedy answers, a second or two for
`vedere-mini` on two cores.
"""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vedere.data.mixture import Part
from vedere.data.packing import IGNORED, Document, collate
from vedere.data.prepare import SamplePreparer
from vedere.data.sample import Sample
from vedere.errors import VedereError
from vedere.infer.engine import Engine, Finished, Request
from vedere.infer.sampling import SamplingParams
from vedere.models.vision_language import VisionLanguageModel
from vedere.plan import SpanKind
from vedere.text.tokenizer import Tokenizer
from vedere.train.batch import pack_positions
from vedere.train.monitor import Shown, sample_page
from vedere.train.run import RunConfig, open_data, preparer
from vedere.train.stages import StageConfig

SHOWN_SIDE = 320  # pixels


class SamplePages:
    """Writes ``samples/step-000123.html`` into the run's directory; an `vedere.train.loop.OnEvaluation`.

    Args:
        samples: Held-out samples on a page.
        max_new_tokens: Most tokens of an answer.
    """

    def __init__(self, samples: int = 12, max_new_tokens: int = 48) -> None:
        self.samples, self.max_new_tokens = samples, max_new_tokens

    def __call__(
        self,
        model: VisionLanguageModel,
        tokenizer: Tokenizer,
        config: RunConfig,
        stage: StageConfig,
        directory: Path,
        step: int,
    ) -> None:
        """Answers the samples and writes the page; does nothing without held-out data."""
        if not config.held_out:
            return
        prepare = preparer(config, stage, tokenizer)
        stops = prepare.template.stop_ids(tokenizer)
        sampling = SamplingParams(max_new_tokens=self.max_new_tokens, stop_ids=stops)
        engine = Engine(model)
        rows: list[Shown | None] = []
        requests: list[Request] = []
        about: list[tuple[int, Sample, str]] = []
        for part, index in spread(open_data(config, config.held_out), self.samples):
            try:
                sample = part.records[index]
                request, expected = question(sample, prepare, stage, model, tokenizer, sampling)
                engine.check(request)
            except VedereError as error:
                name = f"{part.name}, record {index + 1}"
                rows.append(Shown(image=None, prompt=name, answer="", note=f"cannot be shown: {error}"))
                continue
            requests.append(request)
            about.append((len(rows), sample, expected))
            rows.append(None)
        try:
            for event in engine.generate(requests):
                if isinstance(event, Finished):
                    place, sample, expected = about[event.request]
                    note = f"{sample.name}, {len(event.ids)} tokens in {event.timings.total:.2f} s"
                    rows[place] = Shown(
                        image=picture(sample),
                        prompt=first_question(sample),
                        answer=tokenizer.decode(event.ids).strip(),
                        target=expected,
                        note=note if event.reason == "stop" else f"{note}, cut",
                    )
        except VedereError as error:  # logits that are not finite: the loop's own check decides what happens
            rows.append(Shown(image=None, prompt="", answer="", note=f"stopped: {error}"))
        folder = directory / "samples"
        folder.mkdir(exist_ok=True)
        title = f"{config.recipe}, {stage.name}, step {step}"
        sample_page([row for row in rows if row is not None], folder / f"step-{step:06d}.html", title)


def spread(parts: Sequence[Part], count: int) -> list[tuple[Part, int]]:
    """Data set and index of ``count`` records, evenly over the data sets and within each; always the same ones."""
    chosen = []
    for number, part in enumerate(parts):
        size = len(part.records)
        share = min(size, count // len(parts) + (number < count % len(parts)))
        chosen += [(part, index * size // share) for index in range(share)]
    return chosen


def question(
    sample: Sample,
    prepare: SamplePreparer,
    stage: StageConfig,
    model: VisionLanguageModel,
    tokenizer: Tokenizer,
    sampling: SamplingParams,
) -> tuple[Request, str]:
    """The prompt of a sample's first answer, and that answer.

    Raises:
        VedereError: the sample cannot be prepared.
    """
    document: Document = prepare(sample, random.Random(0))
    trained = document.labels != IGNORED
    begin = int(np.argmax(trained))
    end = begin + int(np.argmin(np.append(trained[begin:], False)))
    visual = document.span_types == SpanKind.VISUAL
    per_view = int(visual.sum()) // max(1, document.tile_count)
    tiles = int(visual[:begin].sum()) // max(1, per_view)
    if document.grids:  # a view of each picture is not among the tiles
        ends = list(itertools.accumulate(columns * rows for columns, rows in document.grids))
        tiles = next(end for number, end in enumerate([0, *ends]) if end + number == tiles)
    request = Request(
        ids=document.ids[:begin],
        span_types=document.span_types[:begin],
        positions=pack_positions(collate([document]), stage, random.Random(0))[:begin],
        pixels=torch.from_numpy(document.tiles[:tiles]) if tiles else None,
        statistics=model.statistics,
        sampling=sampling,
    )
    return request, tokenizer.decode(document.ids[begin:end].tolist()).strip()


def first_question(sample: Sample) -> str:
    """The first user turn without its placeholders."""
    text = next((turn.content for turn in sample.conversation if turn.role == "user"), "")
    return text.replace("<image>", "").replace("<video>", "").strip()


def picture(sample: Sample) -> bytes | None:
    """The sample's first picture or frame as a small JPEG; None where there is none or it cannot be read."""
    from vedere.vision.pixels import open_image
    from vedere.vision.video import read_frames

    if not sample.media:
        return None
    ref = sample.media[0]
    try:
        source = ref.read() if ref.member else ref.path
        image: Image.Image
        if ref.kind == "video":
            image = read_frames(source, 1, clip=ref.clip).frames[0]
        else:
            image = open_image(source)
    except VedereError:
        return None
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
