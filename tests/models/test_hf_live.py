"""What `vedere convert --layout hf` writes, in the hands of transformers itself."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_internvl
from vedere.cli import main
from vedere.infer.prompts import Question
from vedere.infer.session import load
from vedere.vision.pixels import normalise


@pytest.fixture
def processor_class(monkeypatch):
    """`AutoProcessor`; its video part needs torchvision, and has a stand-in where that is not installed."""
    from transformers import AutoProcessor, processing_utils

    if importlib.util.find_spec("torchvision") is None:
        from transformers.models.auto.video_processing_auto import AutoVideoProcessor

        check = processing_utils.ProcessorMixin.check_argument_for_proper_class
        monkeypatch.setattr(AutoVideoProcessor, "from_pretrained", classmethod(lambda *args, **kwargs: None))
        monkeypatch.setattr(
            processing_utils.ProcessorMixin,
            "check_argument_for_proper_class",
            lambda self, name, value: None if name == "video_processor" else check(self, name, value),
        )
    return AutoProcessor


@pytest.mark.peer
@pytest.mark.parametrize(
    "changes",
    [{}, {"qkv_bias": False}, {"qkv_bias": False, "qk_norm": True}, {"rope_scaling": "dynamic"}],
    ids=["qwen2", "llama", "qwen3", "dynamic"],
)
def test_transformers_loads_what_is_written_and_agrees(tmp_path, processor_class, changes):
    from transformers import AutoModelForImageTextToText

    source, folder = tiny_internvl.folder(tmp_path / "own", **changes), tmp_path / "hf"
    assert main(["convert", str(source), str(folder), "--layout", "hf"]) == 0
    peer, notes = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(notes.values())
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 97, 3), dtype=np.uint8))
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "How many red circles?"}]
    inputs = processor_class.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    session = load(folder, device="cpu")
    request = session.prompts.make(Question(text="How many red circles?", images=[picture])).request
    assert request.ids.tolist() == inputs["input_ids"][0].tolist()
    pixels = normalise(torch.as_tensor(request.pixels), request.statistics)
    assert len(pixels) == 3  # two tiles and the thumbnail
    # Without torchvision the peer resizes with Pillow as vedere does; its tensor resize is off by one 8-bit level in places.
    level = 1 / 255 / 0.224 if importlib.util.find_spec("torchvision") else 0
    torch.testing.assert_close(pixels, inputs["pixel_values"], atol=1e-6 + level, rtol=0)
    with torch.no_grad():
        expected = peer.eval()(**(dict(inputs) | {"pixel_values": pixels})).logits[0]
        ids, positions, types = (torch.as_tensor(row) for row in (request.ids, request.positions, request.span_types))
        hidden = session.model(ids, positions, [0, len(ids)], types, pixels)
        found = session.model.decoder.logits(hidden)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert peer.generation_config.eos_token_id == session.prompts.tokenizer.token_id("<|im_end|>")
