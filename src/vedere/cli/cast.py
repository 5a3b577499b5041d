"""Options of who writes and chooses; ``vedere compose`` and ``vedere serve compose`` share them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vedere.cli.output import note
from vedere.compose.cast import Cast, open_cast
from vedere.errors import ConfigError
from vedere.recaption.endpoint import EndpointConfig


@dataclass(frozen=True, kw_only=True)
class CastOptions:
    """Who writes and who chooses."""

    model: str | None = None
    """Local model by name or folder; mini if no endpoint is given. With --endpoint it only chooses pictures."""
    endpoint: str = ""
    """Base URL of an OpenAI-compatible endpoint that writes: http://localhost:8000/v1."""
    endpoint_model: str = ""
    """Which of the endpoint's models."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key."""
    timeout: float = 120.0
    """Seconds until a try at an endpoint has failed."""
    retries: int = 6
    """Times that an endpoint is asked again."""
    script: Path | None = None
    """Answers of a scripted model (JSON: step -> answer or list of answers) instead of a model."""
    seed: int = 0
    """Of drawn answers."""
    temperature: float = 0.0
    """0 takes the most probable token."""
    beams: int | None = None
    """Beams of a local model's searches; by default those of the published demos for XComposer, none for other models."""
    device: str | None = None
    """cpu or cuda, for a local model; a GPU is taken if there is one."""
    max_tiles: int | None = None
    """Most tiles of a picture for a local model."""


def check_cast(options: CastOptions) -> None:
    """Refuses what cannot end well, before anything is loaded.

    Raises:
        ConfigError: an endpoint without its model, or a script beside a model.
    """
    if options.endpoint and not options.endpoint_model:
        raise ConfigError(f"--endpoint {options.endpoint} without --endpoint-model; say which of its models to ask")
    if options.script is not None and (options.endpoint or options.model):
        raise ConfigError("--script answers everything; leave out --model and --endpoint")


def cast_of(options: CastOptions, language: str) -> Cast:
    """Who answers, asked in a language where the model was not tuned to the published questions."""
    endpoint = None
    if options.endpoint:
        endpoint = EndpointConfig(
            url=options.endpoint,
            model=options.endpoint_model,
            key_variable=options.key_variable,
            timeout=options.timeout,
            retries=options.retries,
        )
    return open_cast(
        options.model or (None if endpoint else "mini"),
        endpoint=endpoint,
        script=options.script,
        language=language,
        seed=options.seed,
        temperature=options.temperature,
        device=options.device,
        max_tiles=options.max_tiles,
        beams=options.beams,
        say=note,
    )
