import pytest
from hydra import initialize_config_dir

from winnow.defaults import CONF


@pytest.fixture(scope="module")
def hydra():
    """Hydra with our configs, as a command has it."""
    with initialize_config_dir(CONF, version_base="1.3"):
        yield
