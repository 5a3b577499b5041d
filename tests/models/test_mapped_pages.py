"""Pages of mapped files: they leave memory, come back with the same numbers, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vedere.models.checkpoints import load_model, save_model
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.mapped_pages import MappedFiles
from vedere.models.quantized import can_pack, pack_weights
from vedere.models.shards import read_tensors, write_tensors

linux = pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="only Linux says where files are mapped")
MB = 1 << 20


def resident_of_files() -> int:
    """Bytes of mapped files in memory."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile")]
    return int(line.split()[1]) * 1024


@linux
def test_pages_leave_and_come_back_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = [f"part{number}" for number in range(3)]
    write_tensors(tmp_path, {name: torch.randn(5 * MB + 77) for name in names})
    parts = read_tensors(tmp_path)
    sums = {name: parts[name].double().sum() for name in names}  # reads all of it
    before, files = resident_of_files(), MappedFiles()
    assert files.let_go(parts["part1"])
    assert before - resident_of_files() > 0.9 * parts["part1"].nbytes
    assert before - resident_of_files() < 1.1 * parts["part1"].nbytes  # the neighbours stay
    assert {name: parts[name].double().sum() for name in names} == sums
    assert before - resident_of_files() < 0.1 * parts["part1"].nbytes


@linux
def test_what_lies_in_no_file_is_left_alone(tmp_path: Path) -> None:
    own = torch.ones(3 * MB)
    files = MappedFiles()
    assert not files.let_go(own)
    assert float(own.sum()) == 3 * MB
    write_tensors(tmp_path, {"whole": torch.ones(2000, 1000), "small": torch.ones(9)})
    parts = read_tensors(tmp_path)
    files = MappedFiles()
    assert not files.let_go(parts["whole"].t())  # in no one piece
    assert not files.let_go(parts["small"])  # shares its page with others


@linux
@pytest.mark.skipif(not can_pack(), reason="no bfloat16 matmul in this build of oneDNN")
@pytest.mark.parametrize("changes", [{}, {"tied_head": True}, {"moe_size": 4, "moe_active": 2}], ids=str)
def test_a_model_in_another_form_is_not_held_twice(tmp_path: Path, changes: dict[str, int]) -> None:
    torch.manual_seed(0)
    config = DecoderConfig(
        hidden_size=512, ffn_size=2048, layers=4, heads=8, kv_heads=8, head_dim=64, vocab_size=20_000, **changes
    )
    save_model(Decoder(config).to(torch.bfloat16), tmp_path)
    model = load_model(tmp_path).eval()
    ids = torch.arange(40) * 300

    @torch.inference_mode()
    def logits() -> torch.Tensor:
        return model.logits(model(model.embed(ids), torch.arange(40), [0, 40]))

    plain = logits()  # reads every weight
    before = resident_of_files()
    pack_weights(model, "int8")
    table = model.embed.weight.nbytes  # a tied head is not let go: its table is still the embedding
    weights = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert before - resident_of_files() > 0.8 * (weights - table)
    error = (logits() - plain).norm() / plain.norm()
    assert 0 < error < 0.1
