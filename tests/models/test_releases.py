"""Every released size on the meta device: the parameters that were printed, or that its parts add up to."""

import pytest
import torch

from vedere.models.checkpoints import key_map
from vedere.models.footprint import footprint, model_shape, parameters
from vedere.models.internvl import InternVL
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.published import original_config, parse_config
from vedere.models.releases import RELEASES, find_release
from vedere.models.xcomposer import XComposer, XComposerConfig
from vedere.models.xcomposer2 import XComposer2, XComposer2Config

UNITS = {"M": 1e6, "B": 1e9}


@pytest.fixture(scope="module")
def built():
    """Name -> parameters of the model on the meta device by first part of the name."""
    found = {}
    for name, release in RELEASES.items():
        builders = {MonoInternVLConfig: MonoInternVL, XComposerConfig: XComposer, XComposer2Config: XComposer2}
        build = builders.get(type(release.model), InternVL)
        with torch.device("meta"):
            model = build(release.model)
        counts = {"vision": 0, "projector": 0, "decoder": 0, "row_end": 0, "separator": 0}
        for key, parameter in model.named_parameters():
            part = key.split(".")[0]
            counts[part if part in counts else "projector"] += parameter.numel()
        found[name] = counts
    return found


def printed(text: str, count: int) -> bool:
    """Whether a count rounds to its printed form."""
    number, unit = text.split()
    digits = len(number.partition(".")[2])
    return f"{count / UNITS[unit]:.{digits}f}" == number


@pytest.mark.parametrize("name", RELEASES)
def test_parameters_are_those_that_were_printed(built, name):
    counts, published = built[name], RELEASES[name].published
    named = {"vision": counts["vision"], "projector": counts["projector"], "language": counts["decoder"]}
    named["total"] = sum(counts.values())
    wrong = {part: (text, named[part]) for part, text in published.items() if not printed(text, named[part])}
    assert not wrong
    counted = parameters(RELEASES[name].model)
    assert counted.total == named["total"]


def test_all_of_internvl3_and_mono_have_printed_counts():
    names = {name for name, release in RELEASES.items() if release.published}
    assert names == {"mono-internvl-2b", *(f"internvl3-{size}b" for size in (1, 2, 8, 9, 14, 38, 78))}
    assert all(len(RELEASES[name].published) == 4 for name in names - {"mono-internvl-2b"})


@pytest.mark.parametrize(
    ("name", "billions"),  # sizes in the names and tables of the cards, one digit
    [
        ("internvl2-2b", "2.2"),
        ("internvl2-8b", "8.1"),
        ("internvl2-26b", "25.5"),
        ("internvl2.5-38b", "38.4"),
        ("internvl2.5-78b", "78.4"),
        ("internvl3.5-8b", "8.5"),
        ("internvl3.5-30b-a3b", "30.8"),
        ("internvl3.5-241b-a28b", "240.7"),
    ],
)
def test_sizes_of_the_cards(built, name, billions):
    assert f"{sum(built[name].values()) / 1e9:.1f}" == billions


def test_the_active_parameters_of_a_mixture_are_those_in_its_name():
    for name, total, active in (("internvl3.5-30b-a3b", 30.5, 3.3), ("internvl3.5-241b-a28b", 235.1, 22.2)):
        counted = parameters(RELEASES[name].model)
        language = counted.total - sum(counted.parts[part] for part in ("vision tower", "patch embedding", "projector"))
        assert round(language / 1e9, 1) == total
        assert counted.active_text / 1e9 == pytest.approx(active, rel=0.02)


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_survives_the_config_of_its_own_layout(name):
    release = RELEASES[name]
    data = original_config(release.model, {"template": release.template})
    again = parse_config(data)
    assert again.model == release.model
    map_of_files = key_map(again.model, "original", again.language)
    assert map_of_files.own_shapes == key_map(release.model).own_shapes
    for spelling in (name, name.upper(), release.repository, f"{release.repository}-hf"):
        assert model_shape(spelling).model is release.model
    if isinstance(release.model, XComposerConfig):
        assert release.tokens_per_tile == 66
    elif not isinstance(release.model, XComposer2Config):
        assert release.tokens_per_tile == 256
    assert release.repository.lower().replace("_", ".").endswith(name)


@pytest.mark.parametrize("name", RELEASES)
def test_the_context_is_what_an_engine_takes(name):
    model = RELEASES[name].model
    assert RELEASES[name].context == footprint(model, dtype=torch.bfloat16, prompt=1, new_tokens=1, tiles=1).limit


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("OpenGVLab/InternVL2_5-8B-MPO-hf", "internvl2.5-8b"),
        ("OpenGVLab/InternVL3_5-8B-HF", "internvl3.5-8b"),
        ("OpenGVLab/InternVL3-1B-Pretrained", "internvl3-1b"),
        ("OpenGVLab/Mono-InternVL-2B-S1-3", "mono-internvl-2b"),
        ("InternVL2-4B", "internvl2-4b"),
        ("OpenGVLab/InternVL3-78B-AWQ", None),
    ],
)
def test_stages_and_forms_of_a_release_are_found(spelled, name):
    found = find_release(spelled)
    assert (found and found.name) == name
