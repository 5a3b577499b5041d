"""A provider of Inspect whose answers a test gives, and runs with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, ModelUsage, modelapi
from inspect_ai.tool import ToolChoice, ToolInfo

from vedere.evals.run import EvalConfig, evaluate

Answer = Callable[[str, list[ChatMessage]], str]


class Script:
    """What scripted models say, and what they were asked."""

    answers: dict[str, Answer]
    asked: list[tuple[str, str, list[ChatMessage]]]


SCRIPT = Script()


def start(answers: dict[str, Answer]) -> None:
    """Sets answers by name of model (``scripted/NAME``)."""
    SCRIPT.answers, SCRIPT.asked = answers, []


@modelapi(name="scripted")
class Scripted(ModelAPI):
    """Says what the test wants."""

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        (asked,) = [message for message in input if message.role == "user"]
        parts = (
            [asked.content] if isinstance(asked.content, str) else [getattr(one, "text", "") for one in asked.content]
        )
        text = "".join(parts)
        SCRIPT.asked.append((self.model_name, text, input))
        output = ModelOutput.from_content(self.model_name, SCRIPT.answers[self.model_name](text, input))
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    def should_retry(self, ex: BaseException) -> bool:
        return False


def run(name: str, data: Path, out: Path, **fields: Any) -> dict[str, Any]:
    """Runs a benchmark with ``scripted/model``."""
    config = EvalConfig(benchmark=name, data=data, model=fields.pop("model", "scripted/model"), out=out, **fields)
    return evaluate(config)
