from pathlib import Path

import av
import pytest
from drawn_films import KINDS, write


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, found = tmp_path_factory.mktemp("films"), {}
    for name, (stamps, codec, options) in KINDS.items():
        if codec in av.codecs_available:
            found[name] = write(folder / name, stamps, codec, **options)
    return found
