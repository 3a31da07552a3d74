"""The classifiers of a run: one by its path, or several by name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.core import scores
from pipeline.core.scores import Combined, Named
from pipeline.settings import flags
from quality_classifier.combining import check_name
from quality_classifier.scoring import load_classifier
from winnow.filesystem import storage


def one_or_named(flag: str, values: Sequence[str]) -> str | dict[str, str]:
    """The value of a flag, or several by name; an existing path may contain ``=``.

    Raises:
        ValueError: several values without names, or two with one name.
    """
    pairs = [text.partition("=") for text in values]
    plain = [equals == "" or "/" in name for name, equals, _ in pairs]
    if len(values) == 1 and (plain[0] or storage.exists(values[0])):
        return values[0]
    named: dict[str, str] = {}
    for (name, _, value), text, is_plain in zip(pairs, values, plain, strict=True):
        if is_plain or not value:
            raise ValueError(f"--{flag} {text}: several need names, as --{flag} NAME={text}")
        if name in named:
            raise ValueError(f"--{flag}: two are named {name!r}: give each its own name")
        named[name] = value
    return named


def check_classifiers(config: Any) -> tuple[str, ...]:
    """The names of a config's classifiers; none for a single one.

    Raises:
        ValueError: a name, a label or the combination is wrong.
    """
    if not isinstance(config.classifier, Mapping):
        if isinstance(config.label, Mapping):
            raise ValueError("--label NAME=LABEL needs --classifier NAME=PATH")
        for name in ("combine", "calibration"):
            if getattr(config, name) is not None:
                raise ValueError(
                    f"--{name} has no meaning for one classifier: leave it out, or give several as"
                    " --classifier NAME=PATH"
                )
        return ()
    names = tuple(sorted(config.classifier))
    for name in names:
        check_name(name)
    if unknown := sorted(set(_labels(config)) - set(names)):
        raise ValueError(
            f"--label names {', '.join(unknown)}, but the classifiers are {', '.join(names)}"
        )
    combined = with_joined(names, config.combine, _missing(config))
    if not (names or combined.joined):
        raise ValueError(
            "no classifier: give --classifier, or --combine with a joined column, as"
            " --join edu=FILES --combine 'edu_score / 5'"
        )
    return names


def with_joined(
    names: tuple[str, ...],
    rule: str | None,
    missing: Mapping[str, float],
    calibration: Mapping[str, Any] | None = None,
) -> Combined:
    """The combination by a rule of classifiers and joined columns; ValueError for other names."""
    rule = rule or flags.DEFAULT_COMBINE
    return Combined(names, rule, calibration, scores.joined_in(rule, missing))


def _missing(config: Any) -> dict[str, float]:
    """The score of a document without a value, for each join."""
    return {name: join.missing for name, join in config.join.items()}


def _labels(config: Any) -> Mapping[str, str]:
    if isinstance(config.label, str):
        raise ValueError(f"--label {config.label}: name its classifier, as NAME={config.label}")
    return config.label or {}


def described(config: Any) -> tuple[tuple[Named, ...], Combined | None, dict[str, Any]]:
    """Load a config's classifiers: several, their combination, and the manifest's entry.

    Raises:
        ValueError: a path is not a classifier, or the calibration does not fit.
    """
    if not isinstance(config.classifier, Mapping):
        one = load_classifier(config.classifier, config.label)
        return (), None, scores.about_one(config.classifier, one)
    labels = _labels(config)
    # Sorted, because sums of floats depend on their order.
    paths = sorted(config.classifier.items())
    loaded = {name: load_classifier(path, labels.get(name)) for name, path in paths}
    several = tuple(
        Named(name, path, loaded[name].fingerprint, labels.get(name)) for name, path in paths
    )
    prints = {one.name: one.fingerprint for one in several}
    combined = _combination(config, prints, _missing(config))
    return several, combined, scores.about(several, combined, loaded)


def _combination(
    config: Any, fingerprints: Mapping[str, str], missing: Mapping[str, float]
) -> Combined:
    """A config's combination of classifiers and joined columns, with its calibration."""
    rule = config.combine or flags.DEFAULT_COMBINE
    combined = with_joined(tuple(fingerprints), rule, missing)
    if config.calibration is None:
        return combined
    calibration = scores.load_calibration(config.calibration, rule, fingerprints)
    return replace(combined, calibration=calibration)


def combined_again(config: Any, scored: Mapping[str, Any]) -> Combined | None:
    """The combination in ``winnow decide``, by default that of the ``scored`` run's manifest; None
    for one classifier.

    Raises:
        ValueError: the run can't be combined so.
    """
    several = scored["classifier"].get("several")
    requested = config.combine is not None or config.calibration is not None
    if several is None:
        if requested:
            raise ValueError(
                "--combine and --calibration need a run of several classifiers, but this one had"
                " one: run again with --classifier NAME=PATH for each"
            )
        return None
    missing = missing_in(scored)
    if not requested:
        rule, calibration = (scored["classifier"][name] for name in ("combine", "calibration"))
        return with_joined(tuple(sorted(several)), rule, missing, calibration)
    if scored["config"].get("near_duplicates"):
        raise ValueError(
            "--combine cannot change a run with --near-duplicates, whose scores chose which"
            " documents stay: run again with this --combine"
        )
    prints = {name: one["fingerprint"] for name, one in sorted(several.items())}
    return _combination(config, prints, missing)


def missing_in(scored: Mapping[str, Any]) -> dict[str, float]:
    """The score of a document without a value in a finished run, for each join."""
    return {name: join["missing"] for name, join in scored["config"].get("join", {}).items()}
