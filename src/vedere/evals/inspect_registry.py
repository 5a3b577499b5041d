"""What Inspect AI finds under the name ``vedere``: the provider ``vedere/MODEL`` and a task for each benchmark.

``inspect eval vedere/mmbench --model openai/gpt-4o -T data=FOLDER`` works with any provider and any option of Inspect; the
entry point ``inspect_ai`` of the package leads here. Names are written as on vedere's command line or, as Inspect's tasks are,
with underscores: ``vedere/video-mme`` and ``vedere/video_mme`` are one. ``vedere eval`` does the same with plainer options.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.model import ModelAPI, get_model, modelapi

from vedere.evals.inspect_tasks import make_task
from vedere.evals.items import Settings
from vedere.evals.run import folder_of
from vedere.evals.suites import SUITES, data_of, suite


@modelapi(name="vedere")
def vedere_models() -> type[ModelAPI]:
    """Local models, batched by vedere's engine."""
    from vedere.evals.inspect_provider import VedereAPI

    return VedereAPI


def _register(name: str, registered: str) -> Callable[..., Task]:
    @task(name=registered)
    def benchmark(
        data: str = "",
        out: str = "",
        prompts: str = "",
        split: str = "",
        limit: int | None = None,
        seed: int = 0,
        frames: int = 8,
        subtitles: str = "off",
        md5: str = "",
        frame_rule: str = "",
        frame_rate: float = 1.0,
        frame_side: int = 0,
        frame_layout: str = "",
        sound: bool = False,
        blind: bool = False,
        judge: str = "",
    ) -> Task:
        words = {"True": "on", "False": "off"}  # inspect reads -T subtitles=off as YAML
        settings = Settings(
            prompts=prompts,
            split=split,
            limit=limit,
            seed=seed,
            frames=frames,
            subtitles=words.get(str(subtitles), str(subtitles)),
            md5=str(md5),
            frame_rule=frame_rule,
            frame_rate=frame_rate,
            frame_side=frame_side,
            frame_layout=frame_layout,
            sound=sound,
            blind=blind,
        )
        return make_task(
            suite(name), data_of(name, data), Path(out) if out else folder_of(name, str(get_model())), settings, judge
        )

    return benchmark


TASKS = {
    spelling: _register(name, spelling) for name in SUITES for spelling in dict.fromkeys((name, name.replace("-", "_")))
}
"""Name, in both spellings -> registered task."""
