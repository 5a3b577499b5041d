"""transformers' own processor, for tests that hold both sides together."""

import importlib.util

import pytest


@pytest.fixture
def processor_class(monkeypatch):
    """`AutoProcessor`, live. Pictures have a Pillow form there; videos have none, so without torchvision they have nobody."""
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
