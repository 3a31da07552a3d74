"""What an earlier study lets one expect of a planned one, at its own size and at others."""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

from ablations.analyses import ladder
from ablations.contrasts import endpoints
from ablations.contrasts.pairing import contrast
from ablations.contrasts.verdict import number
from ablations.reading import read_study
from ablations.stats import power
from ablations.study import opening
from ablations.study.design.config import AblationConfig
from ablations.study_files.results import Declaration, Primary, Study
from ablations.study_files.table import Row

HEAD = "From small to large: "


def lines(config: AblationConfig, declared: Declaration, flops: Sequence[float]) -> list[str]:
    """Sentences for the plan, from the study that ``noise.pilot`` names; without one, that it
    cannot be known.

    Args:
        config: of any job of the planned study.
        declared: its declaration.
        flops: training compute of one job of each planned size.
    """
    if (pilot := config.noise.pilot) is None:
        return [HEAD + _unknown("no earlier study is named (noise.pilot=DIR)", len(flops))]
    study = _asked(read_study(pilot), config, declared.primary)
    sizes = ladder.sizes(study)
    said = []
    if len(sizes) < 2:
        said.append(HEAD + _unknown(f"{pilot} ran one size", len(flops)))
    else:
        said += _ladder(study, pilot, sizes, max(flops))
    return said + _expected(study, pilot, sizes[-1], config, declared)


def _asked(study: Study, config: AblationConfig, primary: Primary) -> Study:
    """An earlier study with the planned contrast, on the planned endpoint if one is named."""
    endpoint = config.primary.endpoint or study.declared.primary.endpoint
    asked = dataclasses.replace(primary, endpoint=endpoint)
    return dataclasses.replace(study, declared=dataclasses.replace(study.declared, primary=asked))


def _unknown(why: str, sizes: int) -> str:
    text = f"it cannot be known beforehand whether the verdict holds at another size, since {why}."
    return text + (f" This study's own {sizes} sizes will show it." if sizes > 1 else "")


def _ladder(study: Study, pilot: str, sizes: list[str], target: float) -> list[str]:
    """What the sizes of an earlier study say of each other, and how far from them the target is."""
    primary = study.declared.primary
    contrasts = ladder.contrasts(study, sizes)
    signs = ladder.signs(contrasts)
    assert signs is not None  # of two sizes or more
    pair = f"{primary.treatment} against {primary.baseline}"
    said = [f"{HEAD}in {pilot}, {pair} has one sign at {signs.kept} of {signs.sizes} sizes."]
    if orders := ladder.orders(study, sizes):
        said.append(f"  {_share(orders[-1], primary.alpha)}")
    compute = [row["flops"] for row in contrasts]
    times = target / compute[-1]
    steps = [larger / smaller for smaller, larger in pairwise(compute)]
    where = f"  This study's largest jobs take {_times(times)} the compute of the largest there"
    if times > max(steps):
        where += (
            f", a longer step than any there (at most {_times(max(steps))}): less sure than that"
        )
    return [*said, f"{where}."]


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 100 else f"{ratio:.3g} times"


def _share(row: Row, alpha: float) -> str:
    low, high = (f"{row[f'decision_{end}']:.0%}" for end in ("low", "high"))
    return (
        f"{row['decision_right']} of {row['decision_of']} pairs of arms keep their order from one"
        f" size to the next ({1 - alpha:.0%} interval {low} to {high}, for these arms)."
    )


def _expected(
    study: Study, pilot: str, size: str, config: AblationConfig, declared: Declaration
) -> list[str]:
    """How likely the planned study's verdict is, if the difference is that of the largest size."""
    primary = study.declared.primary
    treatment, baseline = (study.seeds(arm, size) for arm in (primary.treatment, primary.baseline))
    found = contrast(study, treatment, baseline)
    if found is None or found.estimate.seed_error is None or len(declared.seeds) < 2:
        return []
    of, noise = found.estimate, opening.expected_noise(config)
    chances = power.assurance(
        of.value, of.error, of.df, noise[0], len(declared.seeds), noise[1], primary.alpha
    )
    better, worse = chances[:: endpoints.gain(primary.endpoint)]
    neither = 1 - better - worse
    return [
        f"Expected verdict: {better:.0%} better, {worse:.0%} worse, {neither:.0%} neither, if the"
        f" difference is that of {pilot} at its largest size, {number(of.value, True)}"
        f" ({number(of.low, True)} to {number(of.high, True)})"
    ]
