"""compare.py end to end on studies with a known truth."""

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from written_study import (
    GROUPS,
    SOURCES,
    declare,
    few_shot_table,
    write_run,
    write_study,
)

from ablations import compare as command
from ablations.analyses import learning_rate
from ablations.analyses.comparison import compare
from ablations.contrasts.endpoints import sample
from ablations.contrasts.verdict import number
from ablations.page.headline import next_step
from ablations.reading import read_study
from ablations.stats.inference import endpoint
from ablations.study_files import results

LENIENT = results.Primary("heldout/curated", "unfiltered", "filtered", 0.5)


@pytest.mark.parametrize(
    ("effect", "outcome"),
    [
        (-0.05, "better"),
        (+0.05, "worse"),
        (-0.006, "differs slightly"),
        (0.0, "no difference"),
    ],
)
def test_the_verdict_is_the_truth(tmp_path, effect, outcome):
    path = write_study(str(tmp_path / "s"), effect, tasks=False)
    # Noise of a difference here: about 0.001 to 0.002.
    result = compare(read_study(path))
    assert result.verdict.outcome == outcome
    assert result.primary["low"] < effect < result.primary["high"]
    assert result.primary["value"] == pytest.approx(effect, abs=0.006)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": [1, 2], "primary": LENIENT}, "there are 2 seeds of both, and 3 are needed"),
        (
            {"unigram": dict.fromkeys(SOURCES, 1.15)},
            "9\\d% of the bits per byte of a unigram model",
        ),
        ({"unigram": {}}, "the unigram baseline is unknown"),
        ({"differing": 0.01}, "only 1.0% of the text read differs"),
    ],
)
def test_what_could_not_have_shown_a_difference_shows_no_equivalence(tmp_path, changes, said):
    path = write_study(str(tmp_path / "s"), 0.0, declare(**changes), tasks=False)
    verdict = compare(read_study(path)).verdict
    assert verdict.outcome == "underpowered"
    assert re.search(said, verdict.sentence)


@pytest.mark.parametrize(
    ("unigram", "said"), [(3.0, "seeds|held-out"), (1.15, "more tokens: .*9\\d%")]
)
def test_models_that_have_learned_little_need_tokens_first(tmp_path, unigram, said):
    tiny = results.Primary("heldout/curated", "unfiltered", "filtered", 1e-6)
    declared = declare(primary=tiny, unigram=dict.fromkeys(SOURCES, unigram))
    study = read_study(write_study(str(tmp_path / "s"), 0.0, declared, tasks=False))
    found = compare(study)
    assert found.verdict.outcome == "underpowered"
    assert re.search(said, next_step(study, found))


def test_primary_values_follow_from_the_definition(tmp_path):
    study = read_study(write_study(str(tmp_path / "s"), -0.05))
    rows = compare(study).tables["seeds"]
    for row in rows:
        run = study.runs["filtered", "", row["seed"]]
        table = run.heldout.to_pandas().groupby("source")[["bits", "bytes"]].sum()
        ratio = table["bits"] / table["bytes"]
        assert row["treatment"] == pytest.approx((ratio["wiki"] + ratio["books"]) / 2, rel=1e-12)
        assert row["difference"] == pytest.approx(row["treatment"] - row["baseline"], abs=1e-12)
    assert [row["seed"] for row in rows] == [1, 2, 3, 4, 5]


def test_one_seed_gives_an_item_error_and_no_verdict(tmp_path):
    path = write_study(str(tmp_path / "s"), -0.05, declare(seeds=[7]))
    study = read_study(path)
    result = compare(study)
    assert result.verdict.outcome == "underpowered"
    assert "one seed" in result.verdict.sentence
    assert result.primary["seed_error"] is None
    assert result.primary["item_error"] > 0
    assert "unknown between seeds" in command.render(study, result)


def test_too_few_noisy_seeds_are_underpowered(tmp_path):
    primary = results.Primary("heldout/curated", "unfiltered", "filtered", 1e-4)
    path = write_study(str(tmp_path / "s"), 0.0, declare(primary=primary, seeds=[1, 2, 3]))
    result = compare(read_study(path))
    assert result.verdict.outcome == "underpowered"
    assert result.verdict.detectable > 1e-4


def test_unpaired_failed_unfinished_and_missing_are_said(tmp_path):
    path = write_study(str(tmp_path / "s"), -0.05)
    shutil.rmtree(results.JobKey("filtered", "", 2).folder(path))
    shutil.rmtree(results.JobKey("filtered", "", 3).folder(path))
    results.write_failure(path, results.JobKey("filtered", "", 3), "out of memory", "Traceback …")
    (tmp_path / "s" / "unfiltered" / "seed_4" / "result.json").unlink()
    result = compare(read_study(path))
    assert result.primary["seeds"] == 2
    states = {(r["arm"], r["seed"]): (r["state"], r["error"]) for r in result.tables["jobs"]}
    assert states == {
        ("filtered", 2): ("missing", None),
        ("filtered", 3): ("failed", "out of memory"),
        ("unfiltered", 4): ("unfinished", None),
    }
    notes = " ".join(result.notes)
    assert "1 failed" in notes
    assert "Seeds [2, 3] of unfiltered have no partner" in notes
    assert "Seeds [4] of filtered have no partner" in notes


def test_nothing_to_compare_says_what_became_of_the_jobs(tmp_path):
    path = write_study(str(tmp_path / "s"), 0.0, declare(seeds=[1]))
    shutil.rmtree(results.JobKey("filtered", "", 1).folder(path))
    results.write_failure(path, results.JobKey("filtered", "", 1), "loss is NaN", "")
    with pytest.raises(ValueError, match=r"filtered seed 1 failed \(loss is NaN\)"):
        compare(read_study(path))


def test_tasks_averages_and_chance(tmp_path):
    study = read_study(write_study(str(tmp_path / "s"), 0.0, lift=0.0))
    result = compare(study)
    run = study.runs["filtered", "", 3]
    scores = run.tasks.to_pandas().groupby(["task", "metric"])["numerator"].mean() * 100
    by = {(r["endpoint"], r["arm"]): r for r in result.tables["averages"]}
    nlg = by["average/nlg/0", "filtered"]
    assert (nlg["rows"], nlg["partial"]) == (2, True)
    assert "triviaqa:exact_match" in nlg["missing"].split()
    said = "The NLG average, 0 shots, is partial: 2 of 9 rows; not run: triviaqa"
    assert said in " ".join(result.notes)
    # SQuADv2 counts twice, so "all" is a mean of four rows.
    wanted = scores[[("boolq", "accuracy"), ("piqa", "accuracy"), ("squad_v2", "f1")]].sum()
    wanted = (wanted + scores["squad_v2", "exact_match"]) / 4
    assert endpoint(sample("average/all/0", run, GROUPS)) == pytest.approx(wanted)
    rows = {r["endpoint"]: r for r in result.tables["tasks"] if r["arm"] == "filtered"}
    assert rows["task/boolq/accuracy/0"]["against_chance"] == "at chance"
    assert rows["task/piqa/accuracy/0"]["against_chance"] == "above chance"
    assert rows["task/squad_v2/f1/0"]["chance"] is None
    assert rows["task/piqa/gold_bits_per_byte/0"]["unit"] == "bits per byte"
    assert rows["task/boolq/accuracy/0"]["chance"] == 50


def test_few_shots_are_one_column_of_each_tasks_own_number(tmp_path):
    declared = declare(seeds=[1, 2], shots=["0", "1", "few"])
    path = write_study(str(tmp_path / "s"), -0.05, declared, tasks=False)
    for run in read_study(path).runs.values():
        results.write_run(path, run.result, run.heldout, few_shot_table())
    tables = compare(read_study(path)).tables
    values = {r["endpoint"]: r["value"] for r in tables["averages"] if r["arm"] == "filtered"}
    assert values["average/nlu/0"] == pytest.approx(10)
    assert values["average/nlu/1"] == pytest.approx(20)
    assert values["average/nlu/few"] == pytest.approx(30)
    assert values["average/nlg/few"] == pytest.approx(20)  # TriviaQA with 1 shot, asked once
    assert values["average/all/few"] == pytest.approx((30 + 30 + 20) / 3)
    assert not {name for name in values if name.endswith(("/8", "/32"))}
    tasks = {r["endpoint"]: r["shots"] for r in tables["tasks"]}
    assert tasks["task/piqa/accuracy/few"] == 32
    assert tasks["task/triviaqa/exact_match/few"] == tasks["task/triviaqa/exact_match/1"] == 1
    (row, _) = (r for r in tables["averages"] if r["endpoint"] == "average/nlu/few")
    assert (row["rows"], row["of"], row["partial"]) == (2, 21, True)
    assert "hellaswag:accuracy" in row["missing"]


def test_contamination_stands_beside_the_scores_of_each_arm(tmp_path):
    path = write_study(str(tmp_path / "s"), -0.05, declare(seeds=[1, 2]))
    items = [f"{i:03d}" for i in range(200)]
    parts = [
        (task, arm, [None if i < 20 else i < known for i in range(200)])
        for task in ("boolq", "piqa", "squad_v2")
        for arm, known in (("unfiltered", 100), ("filtered", 60))
    ]
    flags = pa.concat_tables(
        pa.table([[task] * 200, items, [arm] * 200, dirty], schema=results.CONTAMINATION)
        for task, arm, dirty in parts
    )
    with pa.ipc.new_file(f"{path}/contamination.arrow", results.CONTAMINATION) as writer:
        writer.write_table(flags)
    study = read_study(path)
    rows = {(r["task"], r["metric"], r["arm"]): r for r in compare(study).tables["contamination"]}
    row = rows["piqa", "accuracy", "filtered"]
    assert (row["items"], row["dirty"], row["too_short"]) == (200, 40, 20)
    assert rows["piqa", "accuracy", "unfiltered"]["dirty"] == 80
    tables = [study.runs["filtered", "", seed].tasks.to_pandas() for seed in (1, 2)]
    of = [t[(t.task == "piqa") & (t.metric == "accuracy")].set_index("item") for t in tables]
    dirty = items[20:60]
    clean = [item for item in items if item not in dirty]
    for kind, wanted in (("all", items), ("clean", clean), ("dirty", dirty)):
        expected = 100 * np.mean([t.loc[wanted].numerator.mean() for t in of])
        assert row[f"score_{kind}"] == pytest.approx(expected)
    bits = rows["piqa", "gold_bits_per_byte", "filtered"]
    assert 0 < bits["score_all"] < 1  # bits per byte, not points


def test_the_secondary_family_holds_other_arms_groups_and_averages(tmp_path):
    declared = declare(arms=["unfiltered", "filtered", "random"], seeds=[1, 2, 3])
    path = write_study(str(tmp_path / "s"), -0.05, declared)
    rows = compare(read_study(path)).tables["secondary"]
    assert [(r["arm"], r["endpoint"]) for r in rows] == [
        ("random", "heldout/curated"),
        ("filtered", "heldout/web"),
        *(("filtered", f"average/{name}/0") for name in ("nlg", "nlu", "all", "gold")),
    ]
    assert all(r["p_holm"] >= r["p"] for r in rows)
    assert all(r["family_low"] <= r["low"] <= r["high"] <= r["family_high"] for r in rows)
    declared = declare(seeds=[1, 2], secondary=["heldout/junk", "heldout/web"])
    path = write_study(str(tmp_path / "t"), -0.05, declared)
    rows = compare(read_study(path)).tables["secondary"]
    assert rows[0]["outcome"].startswith("not measured: no held-out source")
    assert rows[1]["p_holm"] == rows[1]["p"]  # the family is what was measured


def test_matched_budgets_say_where_an_arm_ends(tmp_path):
    declared = declare(seeds=[1, 2])
    path = str(tmp_path / "s")
    results.write_declaration(path, declared)
    for seed in declared.seeds:
        write_run(path, "unfiltered", seed, {}, tokens=8_000_000, unique_tokens=8_000_000)
        write_run(path, "filtered", seed, {}, tokens=8_000_000, unique_tokens=2_000_000)
    rows = compare(read_study(path)).tables["matched"]
    status = {(r["matched"], r["at"], r["arm"]): r["status"] for r in rows}
    assert status["equal tokens", 8e6, "filtered"] == "measured"
    assert ("equal unique tokens", 1e6, "filtered") not in status  # before any evaluation
    assert status["equal unique tokens", 8e6, "filtered"] == "not reached"
    assert status["equal unique tokens", 2e6, "filtered"] == "measured"
    shown = command.render(read_study(path), compare(read_study(path))).splitlines()
    assert max(map(len, shown)) <= 80
    row = next(
        r
        for r in rows
        if (r["matched"], r["at"], r["arm"]) == ("equal unique tokens", 2e6, "filtered")
    )
    # There the baseline is at a quarter of its run, 0.75 bits above its end; filtered is done.
    assert row["difference"] == pytest.approx(-0.75, abs=0.02)


def sweep(path, variants, write):
    declared = declare(seeds=[1, 2, 3], variants=list(variants), main=list(variants)[2])
    results.write_declaration(path, declared)
    for variant, value in variants.items():
        for arm in declared.arms:
            for seed in declared.seeds:
                write(path, arm, seed, variant, value)
    return path


def test_sizes_orders_and_the_law_of_scale(tmp_path):
    def write(path, arm, seed, variant, flops):
        base = 2 * (flops / 1e12) ** -0.2 + (0.03 if arm == "unfiltered" else 0)
        shift = dict.fromkeys(("wiki", "books"), base)
        size = {"model": variant, "flops": flops}
        write_run(path, arm, seed, shift, variant, tasks=False, **size)

    sizes = {"tiny": 1e12, "small": 4e12, "large": 64e12, "base": 16e12}
    result = compare(read_study(sweep(str(tmp_path / "s"), sizes, write)))
    assert [r["variant"] for r in result.tables["sizes"]] == [
        "tiny",
        "small",
        "base",
        "large",
    ]
    assert {r["outcome"] for r in result.tables["sizes"]} == {"better"}
    assert [r["decision_right"] for r in result.tables["orders"]] == [1] * 6 + [3]
    assert [r["best_arm_found"] for r in result.tables["orders"]] == [True] * 6 + [None]
    laws = [r for r in result.tables["scaling"] if r["arm"] == "filtered"]
    assert [r["kind"] for r in laws] == ["fitted"] * 4 + ["forecast"]
    assert laws[-1]["flops"] == pytest.approx(64e13)
    truth = 1.1 + 2 * 640**-0.2
    assert laws[-1]["low"] < truth < laws[-1]["high"]


def test_the_learning_rate_check_can_overturn_a_verdict(tmp_path):
    # At 0.01 filtered is better by 0.05; unfiltered alone gains 0.1 from 0.03.
    path = write_study(str(tmp_path / "s"), -0.05, declare(seeds=[1, 2, 3]), tasks=False)
    assert "not checked" in " ".join(compare(read_study(path)).notes)

    def write(path, arm, seed, variant, rate):
        gain = {"unfiltered": {0.03: -0.1}, "filtered": {0.01: -0.05}}[arm].get(rate, 0.0)
        shift = dict.fromkeys(("wiki", "books"), gain)
        write_run(path, arm, seed, shift, variant, tasks=False, learning_rate=rate)

    rates = {"lr1": 0.003, "lr2": 0.01, "lr3": 0.03, "lr4": 0.1}
    further = read_study(sweep(str(tmp_path / "lr"), rates, write))
    result = compare(read_study(path), further)
    assert result.verdict.outcome == "better"
    assert "does NOT hold" in " ".join(result.notes)
    assert "unfiltered 0.03" in " ".join(result.notes)
    best = {r["arm"]: r["learning_rate"] for r in result.tables["learning_rates"] if r["best"]}
    assert best == {"unfiltered": 0.03, "filtered": 0.01}
    # An arm beside the contrast has rows if it was tried at several rates.
    whole = learning_rate.gather(read_study(path), further)
    runs = dict(whole.runs)
    for key, run in whole.runs.items():
        if key.arm == "filtered":
            runs[key._replace(arm="random")] = run
            if not key.variant:
                runs[key._replace(arm="once")] = run
    declared = replace(whole.declared, arms=[*whole.declared.arms, "random", "once"])
    check = learning_rate.check(replace(whole, declared=declared, runs=runs), "better")
    assert {r["arm"] for r in check.rows} == {"unfiltered", "filtered", "random"}
    assert "(unfiltered 0.03, filtered 0.01)" in check.notes[0]


def test_the_command_writes_the_same_bytes_twice(tmp_path, capsys):
    path = write_study(str(tmp_path / "s"), -0.05, declare(seeds=[1, 2, 3]))
    command.main([f"study={path}"])
    shown = capsys.readouterr().out
    assert shown.splitlines()[2].startswith("filtered is better than unfiltered: ")
    assert max(map(len, shown.split("\nFiles:")[0].splitlines())) <= 80
    assert re.search(
        r"^  unfiltered +3 of 3 +tiny +4M +1M +8M +5.0e13 +3 min$", shown, re.MULTILINE
    )
    assert re.search(r"^ +2M +filtered +[\d.]+ +-0\.\d+ +-0\.\d+ to ", shown, re.MULTILINE)
    assert " filtered  unfiltered  difference" in shown
    command.main([f"study={path}", f"output={tmp_path / 'again'}"])
    first, second = tmp_path / "s" / "comparison", tmp_path / "again"
    names = sorted(f.name for f in first.iterdir())
    assert names == sorted(f.name for f in second.iterdir())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    value = json.loads((first / "comparison.json").read_text())
    assert value["verdict"]["outcome"] == "better"
    with open(first / "secondary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["p"]) for r in rows] == [r["p"] for r in value["tables"]["secondary"]]


@pytest.mark.parametrize("arguments", [[], ["stdy=x"], ["study="], ["study"]])
def test_wrong_settings_are_refused(arguments):
    with pytest.raises(ValueError, match="study"):
        command.main(arguments)


@pytest.mark.parametrize(
    ("value", "said"),
    [(-1.4e-15, "+0"), (0.0123456, "+0.0123"), (-1234.6, "-1235"), (1e-9, "+0.00000000100")],
)
def test_figures_have_three_digits_and_no_rounding(value, said):
    assert number(value, signed=True) == said
