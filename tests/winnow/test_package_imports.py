"""One direction of imports, no circle anywhere, and a picture of them that is current."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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


def test_modules_with_kernels_import_what_keeps_them(graph):
    """Else a kernel's stamp on disk would depend on what was imported before."""
    kernels = [m for m in graph if "njit" in source(m)]
    assert len(kernels) > 30
    assert [m for m in kernels if "winnow.compiling" not in {m} | reached(graph, m)] == []


def source(module):
    path = ROOT / module.replace(".", "/")
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")


def reached(graph, module):
    """All that a module imports, by way of others too."""
    found, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [*graph[name], *filter(None, [name.rpartition(".")[0]])]
    return found


def test_no_module_imports_itself_by_way_of_others(graph):
    assert architecture.circle(graph) == []


def test_no_sub_package_imports_itself_by_way_of_others(graph):
    assert architecture.circle(architecture.units(graph)) == []


def test_a_circle_is_found():
    graph = {"a": ["b"], "b": ["c"], "c": ["e", "d"], "d": ["b"]}
    assert "-".join(architecture.circle(graph)) in ("b-c-d-b", "c-d-b-c", "d-b-c-d")
    assert architecture.circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []


@pytest.mark.parametrize(
    "module", ["pipeline.runs.scoring_run", "model.training.training_run", "ablations.run"]
)
def test_every_import_is_seen(quick_python, tmp_path, graph, module):
    """What Python has loaded once the module is imported, is what the graph says."""
    script = tmp_path / "script.py"
    script.write_text(f"import {module}, sys; print(*sys.modules)")
    done = subprocess.run(
        [quick_python, script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split()) & graph.keys()
    assert len(loaded) > 20
    assert loaded <= reached(graph, module)


def test_the_picture_is_current():
    assert architecture.PICTURE.read_text(encoding="utf-8") == architecture.draw(), (
        "run: make architecture"
    )
