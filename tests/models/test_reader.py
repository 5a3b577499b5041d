"""The reader: cells line up with places, each for itself."""

import torch

from vedere.models.reader import CELL, CLASSES, Reader


def test_cells_and_channels() -> None:
    torch.manual_seed(0)
    reader = Reader()
    pixels = torch.randn(2, 3, 8 * CELL, 12 * CELL)
    logits = reader.logits(pixels)
    assert logits.shape == (2, CLASSES + 1, 8, 12)
    features = reader(pixels)
    assert features.shape == (2, Reader.channels, 4, 6)
    cells = torch.nn.functional.pixel_shuffle(features, 2)
    torch.testing.assert_close(cells[:, :CLASSES].sum(1), torch.ones(2, 8, 12))
    torch.testing.assert_close(cells[:, CLASSES], logits[:, CLASSES].sigmoid())
    assert sum(parameter.numel() for parameter in reader.parameters()) < 1.2e6


def test_a_batch_changes_nothing() -> None:
    torch.manual_seed(1)
    reader = Reader().eval()
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(reader(pixels)[1:2], reader(pixels[1:2]), atol=1e-6, rtol=1e-5)
