import pytest
from film_stand_ins import write_set


@pytest.fixture(scope="session")
def whole_set(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set") / "videomme")
