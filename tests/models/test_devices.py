"""Names of devices."""

import pytest
import torch

from vedere.errors import ConfigError
from vedere.models.devices import choose_device


def test_names_and_devices() -> None:
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device() == choose_device("auto") == torch.device(best)


@pytest.mark.parametrize(
    ("name", "message"),
    [("cuba", "unknown device 'cuba'; did you mean 'cuda'?"), ("cuda:99", "sees"), ("", "unknown device ''")],
)
def test_what_is_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        choose_device(name)
    assert message in str(raised.value)
