"""The tower of the original layout: which hidden state, which order, and whose position table."""

import dataclasses

import pytest
import torch

from vedere.errors import ConfigError
from vedere.models.checkpoints import load_model, read_config, save_model
from vedere.models.decoder import DecoderConfig
from vedere.models.intern_vit import InternViT, InternViTConfig
from vedere.models.internvl import InternVL, InternVLConfig
from vedere.models.mono_internvl import MonoInternVLConfig
from vedere.models.patches import PatchConfig, pixel_unshuffle

PATCHES = PatchConfig(width=16, patch=7, tile=28)
TOWER = InternViTConfig(patches=PATCHES, layers=4, heads=2, ffn_size=24)
LANGUAGE = DecoderConfig(hidden_size=16, ffn_size=24, layers=1, heads=2, kv_heads=1, head_dim=8, vocab_size=20)


def built(seed=0, **changes):
    torch.manual_seed(seed)
    tower = dataclasses.replace(TOWER, **changes)
    return InternVL(InternVLConfig(vision=tower, decoder=LANGUAGE)).eval()


@pytest.mark.parametrize("select", [-1, -2, -4, -5, 0, 1, 4])
def test_the_selected_state_is_that_of_the_whole_tower_and_later_blocks_are_not_run(select):
    tower = InternViT(dataclasses.replace(TOWER, select_layer=select)).eval()
    pixels, record = torch.randn(2, 3, 28, 28), []
    with torch.no_grad():
        expected = tower.encode(pixels, record)
        assert len(record) == 5
        assert torch.equal(expected, record[select])
        for block in tower.layers[tower.depth :]:  # NaN would reach the features of a block that is run
            block.scale1.fill_(torch.nan)
        assert torch.equal(tower.encode(pixels), record[select])


@pytest.mark.parametrize("select", [-6, 5])
def test_a_state_that_the_tower_does_not_have_is_refused(select):
    with pytest.raises(ConfigError, match=rf"select_layer {select} of a tower of 4 blocks; expected -5 to 4"):
        dataclasses.replace(TOWER, select_layer=select)


@pytest.mark.parametrize(
    "changes",
    [
        {"select_layer": -2},
        {"patches": dataclasses.replace(PATCHES, unshuffle="v1")},
        {"patches": dataclasses.replace(PATCHES, table_tile=42)},
        {"norm": "rms_norm", "qk_norm": True, "qkv_bias": False, "select_layer": -4},
    ],
)
def test_the_original_layout_keeps_it(tmp_path, changes):
    model = built(**changes)
    save_model(model, tmp_path, layout="original")
    again = load_model(tmp_path)
    assert again.config == model.config
    assert read_config(tmp_path).model == model.config
    pixels = torch.randn(3, 3, 28, 28)
    with torch.no_grad():
        assert torch.equal(again.encode(pixels), model.encode(pixels))


def test_a_table_for_other_tiles_is_interpolated_as_for_other_pixels():
    trained = InternViT(TOWER).eval()
    forced = InternViT(dataclasses.replace(TOWER, patches=dataclasses.replace(PATCHES, tile=56, table_tile=28))).eval()
    forced.load_state_dict(trained.state_dict())
    pixels = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        assert torch.equal(forced.encode(pixels), trained.encode(pixels))
    assert forced.config.tokens_per_tile == 16


@pytest.mark.parametrize("rows", [(2, 4), (6, 2), (4, 4)])
def test_unshuffle_is_the_permutation_of_its_definition(rows):
    h, w = rows
    cells = torch.arange(h * w).view(1, h, w, 1)
    for order in ("v1", "v2"):
        found = pixel_unshuffle(cells, 2, order)[0]
        for r in range(h // 2):
            for c in range(w // 2):
                place = r * (w // 2) + c if order == "v2" else c * (h // 2) + r
                block = [cells[0, 2 * r + i, 2 * c + j, 0] for i in (0, 1) for j in (0, 1)]
                assert found[place].tolist() == block


@pytest.mark.parametrize("make", [InternViTConfig, lambda patches: MonoInternVLConfig(vision=patches, decoder=None)])
def test_patches_without_a_bias_are_clips_alone(make) -> None:
    with pytest.raises(ConfigError, match=r"the patches of .* have a bias, the config says bias=False; set it to true"):
        make(patches=PatchConfig(width=16, patch=14, tile=56, bias=False))
