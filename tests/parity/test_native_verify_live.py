"""A recorded folder made by transformers itself: its own picture token, and rotary tables that go back to the trained base."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from vedere.verify.kinds import recognise

TOKEN, TRAINED = 400, 24


def record(golden, folder):
    """The weights of ``internvl-hf`` under dynamic NTK, and what the peer says to a long batch, then to a short prompt."""
    from transformers import InternVLForConditionalGeneration

    folder.mkdir()
    shutil.copyfile(golden / "internvl-hf" / "model.safetensors", folder / "model.safetensors")
    config = json.loads((golden / "internvl-hf" / "config.json").read_text())
    config["image_token_id"] = TOKEN
    text = config["text_config"]
    text["max_position_embeddings"] = TRAINED
    text["rope_parameters"] = {"rope_theta": 1000.0, "rope_type": "dynamic", "factor": 2.0}
    (folder / "config.json").write_text(json.dumps(config))
    peer = InternVLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    pixels = load_file(golden / "internvl-hf" / "io.safetensors")["pixel_values"][:2]
    ids = torch.randint(3, 390, (1, 48), generator=torch.Generator().manual_seed(0))
    ids[0, 5:13] = TOKEN
    prompt = ids[:, 3:13].clone()
    prompt[0, 6:] = ids[0, 20:24]
    with torch.no_grad():
        logits = peer(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels).logits
        new = peer.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            pixel_values=pixels[:1],
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=None,
        )[:, prompt.shape[1] :]
    tensors = {
        "pixel_values": pixels,
        "input_ids": ids,
        "logits": logits,
        "prompt_ids": prompt,
        "prompt_num_tiles": torch.tensor([1]),
        "generated_ids": new,
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "io.safetensors")


@pytest.mark.peer
def test_a_recording_of_transformers_passes(golden, tmp_path):
    record(golden, tmp_path / "native")
    found = list(recognise(tmp_path / "native").checks(tmp_path / "native"))
    assert {check.name for check in found} >= {"logits", "generated_ids"}
    assert not [check for check in found if not check.passed]
