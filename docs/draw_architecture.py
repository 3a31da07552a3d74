"""Draws docs/architecture.svg from the imports: ``make architecture``.

A row is a package, a box in it a sub-package. An arrow means that something in one package imports
something in another; the packages that import none of the others are at the bottom.
"""

import ast
import html
from collections import defaultdict
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURE = Path(__file__).with_name("architecture.svg")

LAYERS = ("winnow", "pipeline.readers", "quality_classifier", "pipeline", "model", "ablations")
"""Packages from low to high; each may import those before it. The classifier reads training text
through the pipeline's readers."""

WIDTH, LEFT, ROW, BOX, GAP = 1320, 170, 62, 34, 10  # pixels
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2933 } .name { font-weight: 600 }
  .layer { fill: #f4f5f7; stroke: #d5d9e0 } .box { fill: #fff; stroke: #9aa5b1 }
  path { fill: none; stroke: #1f6fd6; stroke-width: 1.4 }
"""


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {}
    for package in sorted({layer.partition(".")[0] for layer in LAYERS}):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """The modules of ours that each module imports, at any level."""
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        named = {
            alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
        }
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= {each if each in known else node.module for each in inner}
        found[name] = {each for each in named if each in known}
    return found


def layer(module: str) -> int:
    """The index in ``LAYERS`` of a module's package."""
    fits = [i for i, name in enumerate(LAYERS) if f"{module}.".startswith(f"{name}.")]
    return max(fits, key=lambda i: len(LAYERS[i]))


def unit(module: str) -> str:
    """The sub-package of a module, or a module that is directly in its package."""
    return ".".join(module.split(".")[:2])


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Some nodes of a graph that lead to one another, in order; empty if there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # it lists what is imported first
    return []


def units(graph: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """The graph of sub-packages, from one of modules."""
    merged: dict[str, set[str]] = defaultdict(set)
    for module, others in graph.items():
        merged[unit(module)] |= {unit(other) for other in others} - {unit(module)}
    return merged


def draw() -> str:
    """The picture as SVG; the same code gives the same bytes."""
    known = modules()
    graph = imports(known)
    boxes: dict[int, list[str]] = defaultdict(list)
    for package in sorted({unit(name) for name, path in known.items() if "." in name}):
        inside = [name for name in known if name.startswith(f"{package}.")]
        if inside and package not in LAYERS:
            boxes[layer(package)].append(package)
    arrows = {(layer(module), layer(other)) for module in graph for other in graph[module]}
    height = ROW * len(LAYERS) + 2 * GAP
    top = {i: height - GAP - ROW * (i + 1) + GAP for i in range(len(LAYERS))}
    middle = WIDTH - 320
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>Packages and what they import</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
        ' markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8"/></marker></defs>',
    ]
    for i, name in enumerate(LAYERS):
        y = top[i]
        out.append(
            f'<rect class="layer" x="8" y="{y}" width="{middle}" height="{ROW - GAP}" rx="6"/>'
            f'<text class="name" x="20" y="{y + 31}">{html.escape(name)}</text>'
        )
        x = LEFT
        for box in boxes[i]:
            short = box.partition(".")[2]
            width = 20 + 8 * len(short)
            out.append(
                f'<rect class="box" x="{x}" y="{y + 9}" width="{width}" height="{BOX}" rx="4"/>'
                f'<text x="{x + 9}" y="{y + 31}">{html.escape(short)}</text>'
            )
            x += width + GAP
    for n, (high, low) in enumerate(sorted((a, b) for a, b in arrows if a != b)):
        y1, y2 = (top[i] + (ROW - GAP) // 2 + 3 * (n % 5 - 2) for i in (high, low))
        x, bend = middle + 8, middle + 30 + 56 * abs(high - low)
        out.append(
            f'<path d="M{x} {y1} C{bend} {y1} {bend} {y2} {x} {y2}" marker-end="url(#tip)"/>'
        )
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE)
