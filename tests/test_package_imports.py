"""One direction of imports, no circle anywhere, and a picture of them that is current."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import draw_architecture as architecture  # noqa: E402


@pytest.fixture(scope="module")
def graph():
    return architecture.imports(architecture.modules())


def test_packages_import_only_what_is_below_them(graph):
    wrong = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if architecture.layer(module) < architecture.layer(other)
    ]
    assert wrong == []


def test_the_model_needs_nothing_of_the_pipeline(graph):
    assert {o for m, others in graph.items() if m.startswith("model") for o in others}.isdisjoint(
        m for m in graph if m.startswith(("pipeline", "quality_classifier", "ablations"))
    )


def test_no_module_imports_itself_by_way_of_others(graph):
    assert architecture.circle(graph) == []


def test_no_sub_package_imports_itself_by_way_of_others(graph):
    assert architecture.circle(architecture.units(graph)) == []


def test_a_circle_is_found():
    assert architecture.circle({"a": ["b"], "b": ["c", "d"], "c": [], "d": ["b"]}) == [
        "b",
        "d",
        "b",
    ]
    assert architecture.circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []


@pytest.mark.parametrize(
    "module", ["pipeline.scoring_run", "model.training.training_run", "ablations.run"]
)
def test_every_import_is_seen(graph, module):
    """What Python has loaded once the module is imported, is what the graph says."""
    code = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    reached, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += [*graph[name], *filter(None, [name.rpartition(".")[0]])]
    loaded = set(done.stdout.split()) & graph.keys()
    assert len(loaded) > 20
    assert loaded <= reached


def test_the_picture_is_current():
    assert architecture.PICTURE.read_text(encoding="utf-8") == architecture.draw(), (
        "run: make architecture"
    )
