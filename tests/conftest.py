"""What all tests share: repeatable examples in continuous integration, torch in one thread."""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Continuous integration tries the same examples every time; people's runs look for new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread of torch, where a module uses it: the same bits on every machine, no crowding."""
    torch = sys.modules.get("torch")  # not imported for tests that have no use for it
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest test, which would otherwise be waited for at the end."""
    items.sort(key=lambda item: item.name != "test_every_command_of_the_guides_runs")
