"""The settings of a run's steps: defaults, changes by the run, and changes by language.

    steps: {gopher: {min_words: 30}, fineweb: }
    languages:
      en: {gopher: }
      de: {gopher: {max_mean_word_characters: 12, stop_words: [der, die, und, in]}}

Here documents in other languages than these two pass gopher and are counted; ``fineweb``, named by
no language, has the same settings for all.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from pipeline.settings import settings_file
from pipeline.steps import defaults as step_defaults
from pipeline.steps import step_class
from pipeline.steps.by_language import KEY, check_name
from winnow import defaults

STEPS_FILE: Final = os.path.join(defaults.CONF, "pipeline", "steps.yaml")
LANGUAGES_FILE: Final = os.path.join(defaults.CONF, "pipeline", "languages.yaml")


def resolve_steps(
    wanted: Sequence[str] | Mapping[str, Any], languages: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The settings of each wanted step, in order, from ``conf/pipeline/steps.yaml``.

    ``wanted`` is a list of names, or maps names to settings that override the file's; a step named
    by its class has its fields' defaults. ``languages`` holds changes by language and step, which
    become a step's setting ``by_language``. Raises ValueError for an unknown step.
    """
    if not wanted:
        return {}
    with open(STEPS_FILE, encoding="utf-8") as file:
        known: dict[str, Any] = yaml.safe_load(file)
    chosen = wanted if isinstance(wanted, Mapping) else dict.fromkeys(wanted)
    unknown = [name for name in chosen if name not in known and "." not in name]
    if unknown:
        raise ValueError(f"unknown steps {unknown}; known are {list(known)}, or MODULE.CLASS")
    steps = {
        name: {**(known.get(name) or step_defaults(name)), **(settings or {})}
        for name, settings in chosen.items()
    }
    for name, settings in steps.items():
        own = {code: by[name] or {} for code, by in (languages or {}).items() if name in by}
        if own:
            settings[KEY] = own | settings.get(KEY, {})
    return steps


def read_languages(given: str | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The settings of steps by language; text is read by :func:`settings_file.read_given`.

    Raises:
        ValueError: they are malformed, a step is unknown, or there is no file.
    """
    if given is None:
        return None
    path, found = "languages", given
    if isinstance(given, str):
        path = "--languages" if given.lstrip().startswith("{") else given
        found = settings_file.read_given("languages", given, LANGUAGES_FILE)
    assert not isinstance(found, str)
    for language, steps in found.items():
        try:
            check_name(language)
            if not isinstance(steps, Mapping) or not steps:
                raise ValueError(f"expected steps with settings, as {{gopher: {{…}}}}, not {steps}")
            for step in steps:
                step_class(step)
        except ValueError as error:
            raise ValueError(f"{path}: language {language}: {error}") from error
    return found


def check(steps: Mapping[str, Mapping[str, Any]], has_field: bool) -> None:
    """Raise ValueError if a step has settings by language (:func:`resolve_steps`), but neither an
    earlier step nor a field of all filtered documents (``has_field``) identifies the language.
    """
    for name, settings in steps.items():
        if name == "language":
            has_field = True
        if KEY in settings and not has_field:
            raise ValueError(
                f"step {name} has settings by language, but nothing before it identifies languages:"
                " put the step language first, or name the field with --field language=FIELD"
            )
