"""A swarm of mixtures and the study that confirms what it proposes, up to the training itself."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sweeps import jobs_of
from tokens_scored import documents, make_corpus
from written_study import write_run

from ablations import compare as command
from ablations import report
from ablations.analyses.comparison import compare
from ablations.page.headline import headline, next_step, reach
from ablations.reading import read_declaration, read_study
from ablations.stats import mixtures
from ablations.study import preflight
from ablations.study.design.jobs import stream_of, training_config
from ablations.study_files import results
from model.data import components

TOY = [
    *("model.vocabulary=300", "data.sequence_length=32", "train.batch_rows=4"),
    *("train.tokens=2048", "evaluate.final_bytes=4000", "unseen=[books]"),
    "primary.endpoint=heldout/unseen",
    "+heldout.unseen=[books]",
]
COMPONENTS = ["web@0-50", "web@50-100", "wiki"]

pytestmark = pytest.mark.usefixtures("hydra")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rows = documents(300, seed=0, sources=("web", "wiki", "books"))
    return make_corpus(tmp_path_factory.mktemp("mixture"), [rows])


def moved(jobs, corpus, output, **of_swarm):
    """The same jobs on a corpus, in a folder."""
    out = []
    for job in jobs:
        data = dataclasses.replace(job.config.data, corpus=str(corpus.folder))
        swarm = dataclasses.replace(job.config.swarm, **of_swarm)
        changes = {"corpus": str(corpus.folder), "output": str(output), "data": data}
        config = dataclasses.replace(job.config, **changes, swarm=swarm)
        out.append(dataclasses.replace(job, config=config))
    return out


@pytest.fixture(scope="module")
def members(hydra):
    first, second = jobs_of("experiment=mixture", "swarm.runs=2", *TOY)
    assert [first.config.data.member, second.config.arm] == ["0", "mix_1"]
    return [member(first, n) for n in range(14)]


def member(first, number):
    """Another job of a sweep, without composing it."""
    data = dataclasses.replace(first.config.data, member=str(number))
    config = dataclasses.replace(first.config, arm=f"mix_{number}", data=data)
    return dataclasses.replace(first, config=config)


@pytest.fixture(scope="module")
def confirming(hydra):
    return jobs_of("experiment=mixture_confirmation", "allow_underpowered=true", *TOY)


def truth(weights):
    """Bits per byte that are least near a half of the better web text and a half of wiki."""
    bad, good, wiki = (weights[name] for name in COMPONENTS)
    return 0.3 * bad + 0.2 * (good - 0.5) ** 2 + 0.2 * (wiki - 0.5) ** 2


def finish(study, corpus, swarm=None):
    """Results of all jobs of a declared study, as if they had been trained."""
    declared = read_declaration(study)
    for arm in declared.arms:
        effect = truth(declared.mixture_of(arm))
        for seed in declared.seeds:
            write_run(
                *(study, arm, seed, {"books": effect}),
                tasks=False,
                provenance={"corpus": {"fingerprint": corpus.fingerprint}},
            )


def test_members_are_mixtures_within_their_bounds_and_errors_independent(corpus, members, tmp_path):
    study = preflight.check(moved(members, corpus, tmp_path / "swarm", repeats=2.0, tokens=6000))
    declared = study.declared
    swarm = declared.swarm
    assert list(swarm.natural) == COMPONENTS
    assert swarm.natural["web@0-50"] == pytest.approx(swarm.natural["web@50-100"], abs=2e-4)
    pool = np.flatnonzero(corpus.pool)
    parts = components.split(corpus, pool, COMPONENTS)
    total = (corpus.lengths[np.concatenate(list(parts.values()))] + 1).sum()
    for arm, mixture in swarm.mixtures.items():
        assert mixture["books"] == 0
        assert sum(mixture.values()) == pytest.approx(1, abs=5e-4)
        for name, of in parts.items():
            size = (corpus.lengths[of] + 1).sum()
            assert mixture[name] * 6000 <= 2.0 * size + 2, (arm, name)
            if arm == "mix_0":
                assert mixture[name] == pytest.approx(size / total, abs=0.02)
    assert len({tuple(m.values()) for m in swarm.mixtures.values()}) == len(swarm.mixtures) == 14
    trained = [training_config(j, declared.mixture_of(j.config.arm)) for j in members]
    assert len({of["seed"] for of in trained}) == 14
    assert not {of["seed"] for of in trained} & set(range(1000))
    read = stream_of(trained[3], corpus).consumed(16)
    weights = declared.mixture_of("mix_3")
    for source in ("web", "wiki"):
        share = sum(w for n, w in weights.items() if n.startswith(source))
        assert read[source]["targets"] / 2048 == pytest.approx(share, abs=0.04)
    more = [member(members[0], 14)]
    grown = preflight.check(
        moved([*members, *more], corpus, tmp_path / "s", repeats=2.0, tokens=6000)
    )
    assert {**grown.declared.swarm.mixtures, **swarm.mixtures} == grown.declared.swarm.mixtures


@pytest.mark.parametrize(
    ("settings", "kept", "said"),
    [
        ({}, 8, "8 runs are too few for the 6 coefficients of 3 components"),
        ({"tokens": 900_000}, 10, r"900,000 tokens of the natural mixture of .* already read some"),
        ({"buckets": 0}, 10, r"swarm\.buckets is 1 or more"),
        ({"buckets": 100}, 10, "has no text: use fewer parts"),
    ],
)
def test_what_can_not_be_a_swarm_is_refused_before_it_runs(
    corpus, members, tmp_path, settings, kept, said
):
    with pytest.raises(ValueError, match=said):
        preflight.check(moved(members[:kept], corpus, tmp_path / "swarm", **settings))


def test_from_the_swarm_to_the_verdict(corpus, members, confirming, tmp_path, monkeypatch):
    monkeypatch.setattr(mixtures, "DRAWS", 300)
    swarm, confirmation = str(tmp_path / "swarm"), str(tmp_path / "confirmation")
    jobs = moved(members, corpus, swarm)
    preflight.write(jobs, preflight.check(jobs))
    second = moved(confirming, corpus, confirmation, folder=swarm)
    with pytest.raises(ValueError, match=r"is not finished: run it again"):
        preflight.check(second)
    finish(swarm, corpus)
    study = read_study(swarm)
    found = compare(study)
    assert found.verdict.outcome == "interim"
    assert headline(study, found).startswith("Proposed: ")
    assert reach(study).startswith("The proposal is about models of ")
    assert "mix_1" not in reach(study)
    assert "experiment=mixture_confirmation" in next_step(study, found)
    rows = {row["component"]: row for row in found.tables["mixture"]}
    of_runs = [truth(mixture) for mixture in study.declared.swarm.mixtures.values()]
    assert truth({name: row["proposed"] for name, row in rows.items()}) < min(of_runs) + 0.01
    for row in rows.values():
        assert 0 <= row["low"] <= row["proposed"] <= row["high"] <= row["most"]
    assert rows["web@0-50"]["effect_low"] > 0
    text = command.render(study, found)
    assert "The proposed mixture" in text
    assert "it was picked because" in text
    page = Path(report.write_report(swarm)).read_text()
    assert "Every run of the swarm" in page

    preflight.write(second, preflight.check(second))
    declared = read_declaration(confirmation)
    proposed = declared.mixture_of("proposed")
    assert proposed["books"] == 0
    for name in COMPONENTS:
        assert proposed[name] == pytest.approx(rows[name]["proposed"], abs=1e-4)
        assert declared.mixture_of("natural")[name] == rows[name]["natural"]
    assert 0.05 < declared.differing < 1
    assert {training_config(job, {})["seed"] for job in second} == {1, 2, 3, 4, 5}
    finish(confirmation, corpus)
    study = read_study(confirmation)
    found = compare(study)
    assert found.verdict.outcome == "better"
    assert "A reader may conclude that it is better" in found.notes[0]
    assert headline(study, found).startswith("proposed is better than natural")
    gained = truth(proposed) - truth(declared.mixture_of("natural"))
    assert found.primary["low"] < gained < found.primary["high"]
    assert "Every run of the swarm" in Path(report.write_report(confirmation)).read_text()

    # What was declared stays, though another processor may round the regression otherwise.
    changed = dict(declared.swarm.mixtures) | {"proposed": proposed | {"wiki": 0.4321}}
    kept = dataclasses.replace(declared.swarm, mixtures=changed)
    results.write_declaration(confirmation, dataclasses.replace(declared, swarm=kept))
    assert preflight.check(second).declared.mixture_of("proposed")["wiki"] == 0.4321
    with pytest.raises(ValueError, match=r"has swarm\.buckets 2, not 3"):
        preflight.check(moved(confirming, corpus, confirmation, folder=swarm, buckets=3))
