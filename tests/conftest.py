"""What all tests share: the same examples every time, torch in one thread."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import preloaded
import pytest
from hypothesis import settings

# The same examples every time: whether the tests pass is no matter of chance. To look for new
# ones, run pytest with EXPLORE=1.
settings.register_profile("same", derandomize=True)
if not os.environ.get("EXPLORE"):
    settings.load_profile("same")


# A commit meanwhile would be another version of the code in what later runs write.
os.environ["GIT_DIR"] = os.devnull


@pytest.fixture(scope="session")
def quick_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A program like Python for commands of ours: it has imported the libraries already.

    All processes of pytest-xdist share it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with preloaded.running(shared / "quick_python") as program:
        yield Path(program)


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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for tests of pages."""
    with browser.browser() as process:
        yield process


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no process waits for another at the end.

    Files stay together, since their tests share fixtures: those with most slow tests come first.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(
        key=lambda item: (
            item.name != "test_every_command_of_the_guides_runs",
            -slow[item.path],
        )
    )
