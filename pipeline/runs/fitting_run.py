"""Fits and writes settings of steps by language. See :mod:`pipeline.fit_steps`."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

from pipeline.core.plan import plan_tasks
from pipeline.readers import FieldMap, Quarantined, ReadOptions, read_batches
from pipeline.settings.step_settings import resolve_steps
from pipeline.steps.heuristics import fitting
from winnow import defaults
from winnow.cli import command
from winnow.commands import console, exits
from winnow.filesystem import storage

STEPS = ("gopher", "gopher_repetition", "fineweb")
MOST_BYTES = 64 << 20
"""Bytes of text per language to read, from its first files on."""


def run(sources: Sequence[str], field: str, tail: float, output: str) -> None:
    """Fit each language and write the file; see ``winnow steps fit --help``.

    Raises:
        ValueError: a language has too little text, or a setting is wrong.
    """
    with exits.usage():
        languages = _by_language(sources)
        if not 0 < tail < 0.5:
            raise ValueError(f"--tail must be more than 0 and less than 0.5, not {tail}")
        if storage.exists(output):
            raise ValueError(f"{output} exists already: choose another --output, or remove it")
    general = resolve_steps(STEPS)
    found: dict[str, Any] = {}
    about = [f"# By winnow steps fit, --tail {tail:g}, of"]
    for language, globs in languages.items():
        with console.doing(f"reading {language}"):
            bad: list[Quarantined] = []
            texts = list(_texts(globs, field, bad))
        if bad:
            print(
                f"warning: {language}: {len(bad):,} of its records could not be read, the first is"
                f" {bad[0].path}, {bad[0].unit} {bad[0].position:,}: {bad[0].reason}",
                file=sys.stderr,
            )
        try:
            found[language] = fitting.fit(texts, general, tail)
        except ValueError as error:
            raise ValueError(f"{language}: {error}") from error
        size = sum(text.nbytes for text in texts) / 1e6
        about.append(
            f"# {language}: {sum(map(len, texts)):,} documents, {size:.1f} MB, {', '.join(globs)}"
        )
        print(_summary(language, found[language]))
    content = yaml.safe_dump(found, allow_unicode=True, sort_keys=False, default_flow_style=None)
    with storage.open_output(output) as file:
        file.write(("\n".join(about) + "\n" + content).encode())
    print(f"next: {command('run')} … --steps language --steps gopher --languages {output}")


def _by_language(sources: Sequence[str]) -> dict[str, list[str]]:
    """Globs by language, in the order of its code."""
    found: dict[str, list[str]] = {}
    for text in sources:
        language, equals, glob = text.partition("=")
        if not (language and equals and glob):
            raise ValueError(f"--source {text!r} is not of the form LANGUAGE=GLOB")
        found.setdefault(language, []).append(glob)
    return dict(sorted(found.items()))


def _texts(globs: Sequence[str], field: str, bad: list[Quarantined]) -> Iterator[pa.Array]:
    """The texts to fit a language to; what can't be read goes to ``bad``."""
    maps, options = FieldMap(text=field), ReadOptions()
    seen = 0
    tasks = plan_tasks({"reference": globs}, (), defaults.SPLIT_BYTES, {"reference": maps}, options)
    for task in tasks:
        batches = read_batches(
            task.input, maps, options, on_quarantine=bad.append, open_input=storage.open_input
        )
        for batch in batches:
            yield batch["text"]
            seen += batch["text"].nbytes
            if seen > MOST_BYTES:
                return


def _summary(language: str, settings: Mapping[str, Mapping[str, Any]]) -> str:
    gopher = settings["gopher"]
    changed = sum(len(own) for own in settings.values())
    return (
        f"{language}: words by {gopher.get('words', 'white space')}, stop words"
        f" {' '.join(gopher['stop_words'])}; {changed} settings"
    )
