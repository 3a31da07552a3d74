"""The page of a study in a real Chromium: its figures, its manners, its looks."""

import csv
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from browser import CONTRAST, HACK, needs_browser, opened
from study_run import ARMS, EXPERTS, LAYERS, declare, write_study
from written_study import few_shot_table

from ablations import report
from ablations.reading import read_study
from ablations.study_files import results

pytestmark = [needs_browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = write_study(tmp_path_factory.mktemp("study") / "s", skip=[("threshold", "", 2)])
    results.write_failure(
        path, results.JobKey("threshold", "", 2), "TrainingFailedError: no number", "trace"
    )
    report.write_report(path)
    return Path(path)


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    declared = declare(arms=ARMS[:2], variants=["small", "medium", "large"], main="large")
    path = write_study(tmp_path_factory.mktemp("ladder") / "s", declared, tasks=False)
    report.write_report(path)
    return Path(path)


def ready(page):
    """Charts are drawn when the browser has told their widths."""
    page.wait_for_selector("#training_loss svg")


def rows(study, name):
    with open(study / "figures" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_verdict_comes_first(chromium, study):
    with opened(chromium, study / "report.html") as page:
        assert page.inner_text("h1").startswith("filtered is better than unfiltered: 2.42")
        assert "Better: filtered against unfiltered on" in page.inner_text("#primary-hint")
        assert "Not every declared job is complete: 1 failed" in page.inner_text("#notes")
        tiles = page.inner_text("#tiles")
        assert "11 of 12" in tiles
        seeds = [float(row["difference"]) for row in rows(study, "seeds")]
        assert f"−{abs(np.mean(seeds)):.4f}" in tiles
        assert page.locator("#seeds svg .mark").count() == 1 + len(seeds)
        assert page.inner_text("#question") == (
            "Is filtered (Pareto, α = 9) better than unfiltered (every document) on curated text?"
        )
        assert f"−{abs(np.mean(seeds)):.4f} bits per byte (95 % interval" in page.inner_text(
            "#answer"
        )
        story = ("question", "headline", "answer", "reach", "heldout svg", "tiles")
        boxes = [page.locator(f"#{box}").bounding_box() for box in story]
        assert all(a["y"] + a["height"] <= b["y"] for a, b in itertools.pairwise(boxes))
        assert boxes[-2]["y"] + boxes[-2]["height"] < 900  # the plot is on the first screen
        assert not re.search(r"kwh|electricity|\bWh\b", page.inner_text("#tiles"), re.I)


def test_marks_stand_where_the_numbers_say(chromium, study):
    wanted = [r for r in rows(study, "heldout") if r["arm"] == "filtered"]
    wanted = {r["endpoint"].split("/")[1]: float(r["difference"]) for r in wanted}
    with opened(chromium, study / "report.html") as page:
        ready(page)
        ink = f"ink{ARMS.index('filtered')}"
        found = page.locator(f"#heldout svg .mark.{ink}").evaluate_all(
            "all => all.map(m => [m.getAttribute('transform'), m.textContent])"
        )
        places = [float(re.match(r"translate\(([\d.]+)", place)[1]) for place, _ in found]
        values = [wanted[name] for name in ("curated", "web")]
        ticks = page.locator("#heldout svg .tick").evaluate_all(
            "all => all.map(t => [t.textContent.replace('−', '-'), t.getAttribute('x')])"
            ".map(pair => pair.map(Number))"
        )
        scale = np.polyfit(*zip(*ticks, strict=True), 1)
        assert np.allclose(np.polyval(scale, values), places, atol=0.2)
        nought = float(page.locator("#heldout svg .nought").get_attribute("x1"))
        assert nought == pytest.approx(scale[1], abs=0.3)
        page.click("#heldout-sources-title")
        page.wait_for_selector("#heldout-sources svg")
        names = page.locator("#heldout-sources .row-name > title").all_text_contents()
        assert names == ["wiki", "books"]  # the sources of curated; web is a group of itself


def test_curves_follow_the_choices(chromium, study):
    with opened(chromium, study / "report.html") as page:
        ready(page)
        assert page.locator("#curves .run-line").count() == 11
        assert page.locator("#curves .mean-line").count() == 4
        assert page.locator("#curves .band").count() == 4
        assert page.locator("#gaps .mean-line").count() == 3
        assert page.locator("#efficiency .mean-line").count() == 3
        assert page.locator("#training_loss .run-line").count() == 11
        assert page.locator("#training_loss .band").count() == 4
        first = page.locator("#curves .mean-line").first.get_attribute("d")
        page.select_option("#pick-endpoint", label="raw web")
        second = page.locator("#curves .mean-line").first.get_attribute("d")
        assert second != first
        page.locator("#pick-axis").get_by_text("unique").click()
        assert page.locator("#curves .label", has_text="unique tokens").count() == 1
        page.locator("#curves svg").hover(position={"x": 300, "y": 100})
        tip = page.inner_text("#tip")
        assert [line.split()[0] for line in tip.splitlines()] == ARMS
        assert "variant" not in page.inner_text("main").lower().split("along the training")[0]
        assert page.locator("#pick-variant").is_hidden()


def test_arms_are_told_apart_without_colour(chromium, study):
    with opened(chromium, study / "report.html") as page:
        ready(page)
        legend = page.locator("#arms-legend .arm")
        assert legend.all_inner_texts() == ARMS
        shapes = legend.locator(".mark").evaluate_all("all => all.map(m => m.getAttribute('d'))")
        dashes = legend.locator("line").evaluate_all(
            "all => all.map(m => m.getAttribute('stroke-dasharray'))"
        )
        assert len(set(shapes)) == len(set(dashes)) == len(ARMS)


def test_chance_is_shown_and_said(chromium, study):
    with opened(chromium, study / "report.html") as page:
        ready(page)
        # boolq was made at chance, piqa above it, for all arms with three seeds.
        assert page.locator("#tasks .guess").count() == 2
        at_chance = [r for r in rows(study, "tasks") if r["against_chance"] == "at chance"]
        at_chance = [r for r in at_chance if r["endpoint"].split("/")[2] == "accuracy"]
        assert page.locator("#tasks .mark.hollow").count() == len(at_chance) > 0
        assert page.locator("#averages .guess").count() == 1
        assert page.locator("#averages .bar").count() == 3 * len(ARMS)
        assert page.inner_text("#load-title").endswith("seed 1")
        assert "NLG is partial, over 2 of its 9 rows" in page.inner_text("#partial")
        page.select_option("#pick-metric", label="f1")
        assert page.locator("#tasks .row-name").all_text_contents()[0].startswith("squad_v2")
        assert page.locator("#not_run tbody tr").count() == 26


def test_the_heat_map_is_the_load(chromium, study):
    with opened(chromium, study / "report.html") as page:
        ready(page)
        assert page.locator("#expert_load rect").count() == LAYERS * EXPERTS
        page.select_option("#pick-load", label="random")
        cells = page.locator("#expert_load rect").evaluate_all(
            "all => all.map(c => [c.textContent, getComputedStyle(c).fill])"
        )
        wanted = [r for r in rows(study, "expert_load") if r["arm"] == "random"]
        for (text, _), row in zip(cells, wanted, strict=True):
            assert text.startswith(f"layer {row['layer']}, expert {row['expert']}: ")
            assert float(re.search(r"([\d.]+)× even", text)[1]) == pytest.approx(
                float(row["of_even"]), rel=1e-3
            )
        assert len({fill for _, fill in cells}) > 10
        page.locator("#pick-router").get_by_text("dropped").click()
        assert "Dropped choices" in page.inner_text("#router-title")


def test_costs_say_what_was_measured(chromium, study):
    with opened(chromium, study / "report.html") as page:
        lines = page.locator("#costs tbody tr").all_inner_texts()
        table = {line.split("\t")[0]: line.split("\t")[1:] for line in lines}
        assert table["FLOPs"][0] == "estimated"
        assert table["Time, all seeds"][0] == "measured"
        assert table["Electricity, all seeds"][0] == "estimated"
        assert table["CO2e, all seeds"][0] == "estimated"
        assert table["Complete jobs"][1:] == ["3 of 3", "3 of 3", "2 of 3", "3 of 3"]
        assert table["Electricity, all seeds"][3] == "20.0 Wh"
        assert table["CO2e, all seeds"][3] == "8.90 g"
        assert "IEA" in page.inner_text("#cost-hint")
        assert "TrainingFailedError: no number" in page.inner_text("#jobs")
        assert not page.is_visible("#provenance")
        page.click("text=Provenance")
        assert "c1a551f1e2" in page.inner_text("#provenance")
        assert "5a4d5a4d" in page.inner_text("#provenance")


def test_the_csv_on_the_page_is_that_beside_it(chromium, study):
    with opened(chromium, study / "report.html") as page:
        ready(page)
        names = page.locator("figure[data-csv]:has(.csv)").evaluate_all(
            "all => all.map(f => f.dataset.csv)"
        )
        files = {file.stem for file in (study / "figures").iterdir()}
        assert {"seeds", "heldout", "curves", "expert_load", "yields", "costs", "jobs"} <= set(
            names
        )
        # Bands are drawn with the curves that they are of.
        assert files - set(names) <= {"bands", "loss_bands"}
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        for name in ("heldout", "jobs", "not_run"):
            with page.expect_download() as info:
                page.locator(f"figure[data-csv={name}] .csv").click()
            assert info.value.suggested_filename == f"{name}.csv"
            with open(info.value.path(), newline="") as file:
                saved = list(csv.DictReader(file))
            beside = rows(study, name)
            assert len(saved) == len(beside)
            for ours, theirs in zip(saved, beside, strict=True):
                for key, value in theirs.items():
                    try:
                        assert float(ours[key]) == float(value)
                    except ValueError:
                        assert ours[key] == value


def test_sizes(chromium, ladder):
    with opened(chromium, ladder / "report.html") as page:
        ready(page)
        assert page.locator("#size_runs .mark").count() == 18
        assert page.locator("#size_runs .mean-line").count() == 2
        assert page.locator("#iso_flop .run-line").count() == 4
        assert page.locator("#scaling tbody tr").count() == 8
        assert "3 of 3 sizes" in page.inner_text("#tiles")
        assert page.locator("#sizes .mark").count() == 3
        assert page.locator("#orders tbody tr").count() == 4
        metrics = page.locator("#proxies tbody tr").all_inner_texts()
        shown = [row for row in rows(ladder, "proxies") if row["variant"] == "small"]
        assert [line.split("\t")[1] for line in metrics] == [
            page.evaluate("digits", float(row["ratio"])) for row in shown
        ]
        page.select_option("#pick-variant", label="small")
        assert page.locator("#curves .run-line").count() == 6


def test_a_number_that_is_swept_is_the_axis_of_a_chart(chromium, study, tmp_path):
    arms = ["alpha=0.0", "alpha=3.0", "alpha=12.0"]
    primary = results.Primary("heldout/curated", arms[0], arms[2], 0.01)
    declared = declare(arms=arms, seeds=[1, 2], primary=primary)
    path = write_study(tmp_path / "s", declared, tasks=False)
    report.write_report(path)
    with opened(chromium, tmp_path / "s" / "report.html") as page:
        ready(page)
        page.wait_for_selector("#swept svg")
        assert page.locator("#swept .mark").count() == 3
        texts = page.locator("#swept text").all_text_contents()
        assert {"0", "3", "12", "alpha"} <= set(texts)
        places = page.locator("#swept .mark").evaluate_all(
            "all => all.map(m => Number(m.getAttribute('transform').match(/[\\d.]+/)[0]))"
        )
        near, far = places[1] - places[0], places[2] - places[0]
        assert far == pytest.approx(4 * near, rel=0.01)
        page.click("#pick-swept-what label:nth-child(2)")
        assert page.locator("#swept .mark").count() == 2  # the baseline is 0
        page.select_option("#pick-swept", label="raw web")
        assert page.inner_text("#swept-title") == "raw web by alpha"
    with opened(chromium, study / "report.html") as page:
        ready(page)
        assert not page.is_visible("text=Along the sweep")


def test_columns_of_shots_and_contamination(chromium, tmp_path):
    declared = declare(arms=ARMS[:2], seeds=[1, 2], shots=["0", "1", "few"])
    path = write_study(tmp_path / "s", declared, tasks=False)
    for run in read_study(path).runs.values():
        results.write_run(path, run.result, run.heldout, few_shot_table())
    items = [f"{i:03d}" for i in range(200)]
    flags = pa.concat_tables(
        pa.table([[task] * 200, items, [arm] * 200, dirty], schema=results.CONTAMINATION)
        for task in ("boolq", "piqa", "triviaqa")
        for arm, dirty in zip(ARMS, ([i < 50 for i in range(200)], [False] * 200), strict=False)
    )
    with pa.ipc.new_file(f"{path}/contamination.arrow", results.CONTAMINATION) as writer:
        writer.write_table(flags)
    report.write_report(path)
    with opened(chromium, tmp_path / "s" / "report.html") as page:
        ready(page)
        labels = page.locator("#pick-shots label").all_text_contents()
        assert labels == ["0 shots", "1 shot", "few shots"]
        page.click("#pick-shots label:nth-child(3)")
        names = page.locator("#tasks .row-name > title").all_text_contents()
        assert names == ["boolq (8)", "piqa (32)"]
        assert "NLU (2 of 21 rows)" in page.inner_text("#averages")
        cells = page.locator("#contamination tbody tr").all_inner_texts()
        assert len(cells) == 4  # two tasks with an accuracy, two arms
        # 60 of 200 right with these shots, the first 50 of which are dirty in one arm.
        of = dict.fromkeys(ARMS[:2])
        for cell in cells[2:]:
            task, arm, *numbers = cell.split("\t")
            of[arm] = numbers
            assert task == "piqa"
        assert of["unfiltered"] == ["200", "25 %", "0 %", "30.0", "6.67", "100"]
        assert of["filtered"] == ["200", "0 %", "0 %", "30.0", "30.0", "–"]
    assert (tmp_path / "s" / "figures" / "contamination.csv").exists()


def test_a_study_without_anything_says_why(chromium, tmp_path):
    path = str(tmp_path / "s")
    results.write_declaration(path, declare())
    report.write_report(path)
    with opened(chromium, tmp_path / "s" / "report.html", width=500) as page:
        assert page.inner_text("h1") == "Nothing can be compared yet"
        shown = page.locator("h2:visible").all_inner_texts()
        assert shown == ["Cost", "Unfinished runs", "Provenance", "What is not on this page"]
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        text = page.inner_text("body")
        assert text.count("No job is complete yet.") == 1
        assert "NaN" not in text
        assert "undefined" not in text
        assert page.locator("#jobs tbody tr").count() == 12


def test_an_arm_has_one_colour_in_every_study(chromium, study, tmp_path):
    def colors(path):
        with opened(chromium, path / "report.html") as page:
            ready(page)
            legend = page.locator("#arms-legend .arm")
            inks = legend.locator(".mark").evaluate_all(
                "all => all.map(m => getComputedStyle(m).fill)"
            )
            return dict(zip(legend.all_inner_texts(), inks, strict=True))

    arms = ["alpha=9.0", "random", "filtered", "alpha=3.0", "alpha=12.0"]
    primary = results.Primary("heldout/curated", arms[0], arms[2], 0.01)
    declared = declare(arms=arms, seeds=[1, 2], primary=primary)
    report.write_report(write_study(tmp_path / "s", declared, tasks=False, routers=False))
    here, there = colors(study), colors(tmp_path / "s")
    assert {arm: here[arm] for arm in ("random", "filtered")} == {
        arm: there[arm] for arm in ("random", "filtered")
    }
    assert len(set(there.values())) == len(arms)
    assert len(set(here.values())) == len(ARMS)


@pytest.mark.parametrize("count", [2, 9])
def test_many_arms(chromium, tmp_path, count):
    arms = ["unfiltered", "filtered", *(f"alpha={i}" for i in range(count - 2))]
    path = write_study(tmp_path / "s", declare(arms=arms, seeds=[1, 2]), tasks=False)
    report.write_report(path)
    with opened(chromium, tmp_path / "s" / "report.html") as page:
        ready(page)
        assert page.locator("#arms-legend .arm").count() == count
        looks = page.locator("#arms-legend .arm svg").evaluate_all(
            "all => all.map(m => m.innerHTML)"
        )
        assert len(set(looks)) == count


def test_hostile_words_are_shown_and_never_run(chromium, tmp_path):
    group = HACK.replace("/", "\u2215")  # a slash would end the name of the endpoint
    declared = declare(
        name=f"</script>{HACK}", arms=ARMS[:2], seeds=[1, 2, 3],
        heldout={group: ["wiki", "books"], "__proto__": ["web"]},
        primary=results.Primary(f"heldout/{group}", *ARMS[:2], 0.01),
    )  # fmt: skip
    path = write_study(
        tmp_path / "s", declared, skip=[("filtered", "", 3)], model=HACK, kwh=0.5,
        provenance={HACK: HACK, "__proto__": {"a": [HACK]}, "constructor": HACK},
    )  # fmt: skip
    results.write_failure(path, results.JobKey("filtered", "", 3), f"</script>{HACK}", HACK)
    report.write_report(path)
    with opened(chromium, tmp_path / "s" / "report.html") as page:
        ready(page)
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert f"</script>{HACK}" in page.inner_text("#study")
        assert HACK in page.inner_text("#jobs")
        assert HACK in page.inner_text("#provenance")
        assert HACK in page.inner_text("#costs")
        page.select_option("#pick-endpoint", label="__proto__")
        assert page.locator("#curves .mean-line").count() == 2
        assert page.locator("main img, main script, main iframe").count() == 0
        assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_it_fits_and_can_be_read(chromium, study, ladder, scheme, width):
    for path in (study, ladder):
        with opened(chromium, path / "report.html", width=width, scheme=scheme) as page:
            ready(page)
            page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(CONTRAST) == []
            for chart in ("seeds", "heldout", "curves", "gaps"):
                box = page.locator(f"#{chart} svg").bounding_box()
                assert 200 < box["width"] <= width


def test_the_page_holds_what_the_study_says(chromium, study):
    with opened(chromium, study / "report.html") as page:
        shown = json.loads(page.locator("#data").text_content())
    assert shown == report.gather(str(study), read_study(str(study)), None)
