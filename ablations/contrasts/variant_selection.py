"""Select the variant at which each arm is compared (:mod:`ablations.study_files.variant_choice`).

**Each arm at its best.** The candidates of an arm are the variants of its model: learning rates,
numbers of passes, or both. The best mean over seeds is chosen on a share of each source's held-out
documents, selected by hash with copies of a text together; the endpoint excludes them. The interval
includes the uncertainty of the choice (:mod:`ablations.stats.candidates`).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import xxhash

from ablations.contrasts import endpoints
from ablations.contrasts.pairing import contrast, sample
from ablations.stats import candidates, inference
from ablations.study_files.results import JobKey, Result, Run, Study
from ablations.study_files.table import Row
from ablations.study_files.variant_choice import Choice, ChosenVariants, CompareAt
from model.data.arms import BoolArray

FEWEST = 2
"""Documents of a source on either side; one gives no standard error."""


def choose(study: Study) -> Study:
    """The study with variants chosen as declared, if any; a ValueError if that is impossible."""
    declared = study.declared.compare
    if study.chosen is not None or declared is None or declared.at == CompareAt.main:
        return study
    return lowest(study) if declared.at == CompareAt.lowest else best(study, declared.selection)


def variants_of(study: Study, arm: str) -> list[str]:
    """The variants of an arm that were run with the model of the main variant."""
    runs = {v: study.seeds(arm, v) for v in study.declared.variants}
    models = {v: next(iter(of.values())).result.model for v, of in runs.items() if of}
    model_of_main = models.get(study.declared.main, next(iter(models.values()), None))
    return [variant for variant, model in models.items() if model == model_of_main]


def best(study: Study, share: float) -> Study:
    """Each arm at its best variant, on the seeds that all its variants have.

    The choice uses a ``share`` of the endpoint's documents.

    Raises:
        ValueError: an arm of the contrast has fewer than two variants, or there is too little text.
    """
    declared = study.declared
    tried = {arm: of for arm in declared.arms if (of := variants_of(study, arm))}
    if any(len(tried.get(arm, ())) < 2 for arm in _contrast(study)):
        raise ValueError(
            "each arm was run at one setting only, so there is nothing to choose from: sweep"
            " over learning rates or passes (experiment=learning_rate compare.at=best)"
        )
    by = _chosen_by(study)
    apart, rest = _split(study, by, share)
    level = declared.primary.alpha * candidates.SPENT / sum(len(of) > 1 for of in tried.values())
    choices, rows, notes, ends = {}, [], [], []
    dropped: list[JobKey] = []
    for arm, variants in tried.items():
        runs = {variant: apart.seeds(arm, variant) for variant in variants}
        shared = sorted(set.intersection(*map(set, runs.values())))
        if not shared:
            raise ValueError(f"no seed has every setting of {arm}: run the study again")
        lost = [JobKey(arm, v, s) for v, of in runs.items() for s in of if s not in shared]
        dropped += lost
        if seeds := sorted({key.seed for key in lost}):
            notes.append(f"Seeds {seeds} of {arm} lack a setting and are left out.")
        of_shared = [[of[s] for s in shared] for of in runs.values()]
        possible, values = _rank(apart, by, of_shared, level)
        names = [variants[k] for k in possible]
        choices[arm] = Choice(names[0], names, len(variants))
        results = {variant: of[shared[0]].result for variant, of in runs.items()}
        rows += _rows(arm, results, names, values, len(shared))
        if warnings := _ends(arm, results, names[0]):
            ends.append(arm)
            notes += warnings
        if len(names) > 1:
            others = " or ".join(in_words(name, results[name]) for name in names[1:])
            notes.append(f"{arm} may be best at {others} too; the interval allows for that.")
        if len(variants) == 1 and declared.compare:
            notes.append(f"{arm} was run at one setting only and is compared there.")
    chosen = ChosenVariants(
        at=CompareAt.best,
        choices=choices,
        tried=max(choices[arm].tried for arm in _contrast(study)),
        of=_kind([study.seeds(arm, v) for arm in _contrast(study) for v in tried[arm]]),
        by=by,
        rows=rows,
        notes=[*_counts(study, choices), *notes],
        ends=ends,
    )
    kept = {key: run for key, run in rest.runs.items() if key not in dropped}
    return dataclasses.replace(rest, runs=kept, chosen=chosen)


def lowest(study: Study) -> Study:
    """Each arm at its lowest learning rate; a ValueError if an arm has only one."""
    choices, rows = {}, []
    by_arm: dict[str, list[str]] = {}
    for arm in study.declared.arms:
        variants = variants_of(study, arm)
        results = {v: next(iter(study.seeds(arm, v).values())).result for v in variants}
        if not results:
            continue
        order = sorted(results, key=lambda variant: results[variant].learning_rate)
        if len({result.learning_rate for result in results.values()}) < 2:
            raise ValueError(
                f"{arm} was run at one learning rate only, but compare.at=lowest needs several"
                " (experiment=learning_rate)"
            )
        by_arm[arm] = order
        choices[arm] = Choice(order[0], [order[0]], 1)
        runs = [study.seeds(arm, variant).values() for variant in order]
        each = [[inference.endpoint(sample(study, run)) for run in of] for of in runs]
        ordered = {variant: results[variant] for variant in order}
        values = [float(np.mean(of)) for of in each]
        rows += _rows(arm, ordered, order[:1], values, len(runs[0]))
    chosen = ChosenVariants(
        at=CompareAt.lowest,
        choices=choices,
        tried=max(map(len, by_arm.values()), default=0),
        of="learning rates",
        by=None,
        rows=rows,
        notes=_steady(study, by_arm),
    )
    return dataclasses.replace(study, chosen=chosen)


def _contrast(study: Study) -> tuple[str, str]:
    primary = study.declared.primary
    return primary.treatment, primary.baseline


def _chosen_by(study: Study) -> str:
    """The held-out text to choose on: the endpoint's, or for a task, unseen or known text."""
    declared = study.declared
    if declared.primary.endpoint.startswith("heldout/"):
        return declared.primary.endpoint
    group = next((g for g in ("unseen", "known", *declared.heldout) if g in declared.heldout), None)
    if group is None:
        raise ValueError("there is no held-out text to choose on: name a group in heldout={…}")
    return f"heldout/{group}"


def _split(study: Study, by: str, share: float) -> tuple[Study, Study]:
    """The study on the documents of the choice, and on those of the endpoint."""
    if by != study.declared.primary.endpoint:
        return study, study
    _, _, group = by.partition("/")
    sources = study.declared.heldout.get(group, [group])
    chosen = selection(next(iter(study.runs.values())).heldout, sources, share)
    return _on(study, chosen), _on(study, ~chosen)


def _on(study: Study, rows: BoolArray) -> Study:
    runs = {
        key: dataclasses.replace(run, heldout=run.heldout.filter(pa.array(rows)))
        for key, run in study.runs.items()
    }
    return dataclasses.replace(study, runs=runs)


def selection(heldout: pa.Table, sources: Sequence[str], share: float) -> BoolArray:
    """The rows (HELDOUT_SCHEMA) to choose on: bool [rows], the same for all runs of a study.

    Sources of fewer than four documents have none.

    Raises:
        ValueError: no source has enough documents.
    """
    names, ids = heldout["source"].to_pylist(), heldout["document"].to_pylist()
    bits = [round(value, 3) for value in heldout["bits"].to_pylist()]
    texts = list(zip(heldout["bytes"].to_pylist(), bits, strict=True))  # equal for copies of a text
    chosen = np.zeros(len(heldout), np.bool_)
    for source in sources:
        rows = [i for i, name in enumerate(names) if name == source]
        if len(rows) < 2 * FEWEST:
            continue
        first: dict[tuple[int, float], str] = {}
        for i in rows:
            first[texts[i]] = min(ids[i], first.get(texts[i], ids[i]))
        hashes = [xxhash.xxh3_64_intdigest(first[texts[i]].encode()) for i in rows]
        keys = np.array(hashes, np.uint64)
        count = min(max(round(share * len(rows)), FEWEST), len(rows) - FEWEST)
        selected = keys <= np.sort(keys)[count - 1]
        if FEWEST <= selected.sum() <= len(rows) - FEWEST:
            chosen[np.array(rows)[selected]] = True
    if not chosen.any():
        raise ValueError(
            f"no source of {', '.join(sources)} has {2 * FEWEST} held-out documents, to choose on"
            " some and compare on others: hold out more (winnow prepare … held_out=0.1)"
        )
    return chosen


def _rank(
    study: Study, by: str, runs: Sequence[Sequence[Run]], level: float
) -> tuple[list[int], list[float]]:
    """Candidates that may be the best, the leader first, and each candidate's mean.

    ``runs`` are by candidate and seed. Sources without documents to choose on are ignored.
    """
    _, _, group = by.partition("/")
    names = study.declared.heldout.get(group, [group])
    sources = [source for source in names if source in runs[0][0].documents]
    samples = [[endpoints.sample(by, run, {group: sources}) for run in of] for of in runs]
    values = np.array([[inference.endpoint(one) for one in of] for of in samples]).T
    better = endpoints.gain(by) * values
    if len(runs) == 1:
        return [0], [float(values.mean())]
    leader = samples[int(better.mean(axis=0).argmax())]
    items = [inference.difference(of, leader).item_error for of in samples]
    possible = candidates.first_and_possible(better, level, items)
    return possible, [float(value) for value in values.mean(axis=0)]


def _rows(
    arm: str,
    results: Mapping[str, Result],
    possible: Sequence[str],
    values: Sequence[float],
    seeds: int,
) -> list[Row]:
    rows: list[Row] = [
        {
            "arm": arm,
            "variant": variant,
            "learning_rate": result.learning_rate,
            "tokens": result.tokens,
            "passes": result.epochs,
            "seeds": seeds,
            "value": value,
            "best": variant == possible[0],
            "possible": variant in possible,
        }
        for (variant, result), value in zip(results.items(), values, strict=True)
    ]
    return sorted(rows, key=lambda row: (row["learning_rate"], row["passes"]))


def _ends(arm: str, results: Mapping[str, Result], chosen: str) -> list[str]:
    """Warnings if the best lies at the edge of the search."""
    warnings = []
    rates = {variant: result.learning_rate for variant, result in results.items()}
    passes = {variant: round(result.epochs, 1) for variant, result in results.items()}
    for what, tried in (("learning rate", rates), ("number of passes", passes)):
        low, high, here = min(tried.values()), max(tried.values()), tried[chosen]
        # Below one pass the text is the same.
        at_low_end = here == low and (tried is rates or here > 1)
        if low < high and (here == high or at_low_end):
            warnings.append(
                f"The best {what} of {arm}, {here:g}, is the"
                f" {'highest' if here == high else 'lowest'} that was tried: a better one may lie"
                " beyond."
            )
    return warnings


def in_words(variant: str, result: Result) -> str:
    """A setting in words: its name in the study, else its learning rate."""
    return variant or f"learning rate {result.learning_rate:g}"


def _kind(runs: Sequence[Mapping[int, Run]]) -> str:
    results = [next(iter(by_seed.values())).result for by_seed in runs]
    rates = len({result.learning_rate for result in results}) > 1
    passes = len({round(result.epochs, 1) for result in results}) > 1
    if rates and passes:
        return "learning rates and numbers of passes"
    return "numbers of passes" if passes else "learning rates" if rates else "settings"


def _counts(study: Study, choices: Mapping[str, Choice]) -> list[str]:
    """A note if the arms of the contrast were not searched equally."""
    tried = {arm: choices[arm].tried for arm in _contrast(study)}
    if len(set(tried.values())) == 1:
        return []
    counts = " and ".join(f"{arm} {count}" for arm, count in tried.items())
    return [
        f"The arms were not searched equally ({counts} settings): this favours the one with more."
    ]


def _steady(study: Study, by_arm: Mapping[str, Sequence[str]]) -> list[str]:
    """A note on the sign at the next learning rate; checks that both arms share the lowest."""
    pair = [arm for arm in _contrast(study) if arm in by_arm]
    if len(pair) < 2:
        return []
    runs = [[study.seeds(arm, variant) for variant in by_arm[arm][:2]] for arm in pair]
    rates = [[next(iter(of.values())).result.learning_rate for of in both] for both in runs]
    if rates[0][0] != rates[1][0]:
        raise ValueError(
            f"the lowest learning rates of the arms differ ({rates[0][0]:g} and {rates[1][0]:g}):"
            " run both at the same ones"
        )
    contrasts = [contrast(study, runs[0][at], runs[1][at]) for at in (0, 1)]
    if contrasts[0] is None or contrasts[1] is None:
        return []
    same = contrasts[0].estimate.value * contrasts[1].estimate.value > 0
    word = "the same sign" if same else "the OTHER sign, so the lowest may not be low enough"
    return [f"At the next learning rate, {rates[0][1]:g}, the difference has {word}."]
