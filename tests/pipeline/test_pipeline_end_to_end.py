"""pipeline/run.py and pipeline/decide.py as users start them, against plain loops."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xxhash
import yaml
from corpora import documents, fingerprints, write_classifier, write_jsonl
from pipeline_runs import flags, manifest, shards

from model.data import scored
from model.prepare import PrepareConfig, TokenizerConfig, prepare
from pipeline import calibrate, decide, run
from pipeline.core.scores import log_odds
from pipeline.output import run_notes, schema
from pipeline.settings.step_settings import resolve_steps
from quality_classifier.scoring import load_classifier

pytestmark = pytest.mark.slow


def test_every_document_is_scored_and_decided_as_a_plain_loop_would(here):
    classifier = load_classifier(str(here / "classifier"))
    expected = {}
    for source in ("web", "wiki"):
        for seed in range(5 if source == "web" else 1):
            n = 60 if source == "wiki" else 100 if seed == 4 else 150
            for row in documents(n, seed, source):
                digest = xxhash.xxh3_128_hexdigest(row["text"].encode())
                key = f"{source}\n{row.get('url', '')}\n{digest}"
                name = row.get("id", xxhash.xxh3_128_hexdigest(key.encode()))
                score = classifier.score(pa.array([row["text"]]))[0]
                draw = (xxhash.xxh3_64_intdigest(name.encode(), 5) >> 11) / 2**53
                kept = source == "wiki" or draw < (2 - float(score)) ** -2.0
                expected[name] = (source, row.get("url"), row["text"], score, draw, kept)
    table = shards(here / "scored")
    assert table.schema.equals(schema.shard_schema())
    found = {
        row["id"]: tuple(
            row[name] for name in ("source", "url", "text", "quality_score", "keep_draw", "kept")
        )
        for row in table.to_pylist()
    }
    assert found == expected
    assert len(table) == len(expected)
    reasons = set(zip(table["kept"].to_pylist(), table["drop_reason"].to_pylist(), strict=True))
    assert reasons == {(True, None), (False, "quality")}


def test_accounting_and_statistics_are_those_of_the_shards(here):
    table = shards(here / "scored").to_pandas()
    account = manifest(here / "scored")["accounting"]
    for source, group in table.groupby("source"):
        assert account[source]["read"] == len(group)
        assert account[source]["kept"] == group["kept"].sum()
    curves = pq.read_table(here / "scored" / "statistics" / "keep_curves.parquet").to_pandas()
    web = table[table["source"] == "web"]
    for stop in curves[curves["rule"] == "pareto"].itertuples():
        kept = web[web["keep_draw"] < (2 - web["quality_score"].astype(float)) ** -stop.parameter]
        assert (stop.documents, stop.bytes) == (len(kept), kept["bytes"].sum())


def test_other_tools_read_the_shards(here):
    import polars as pl  # here, so that other processes of pytest need not
    from datasets import load_dataset

    pattern = f"{here}/scored/shards/*.arrow"
    table = shards(here / "scored")
    by_datasets = load_dataset("arrow", data_files=pattern, split="train", cache_dir=here / "hf")
    assert by_datasets["id"][:] == table["id"].to_pylist()
    by_polars = pl.concat(
        [pl.read_ipc(path) for path in sorted((here / "scored/shards").iterdir())]
    )
    assert by_polars["text"].to_list() == table["text"].to_pylist()


def test_same_bytes_whatever_the_workers_and_the_order_of_the_inputs(here):
    several = [*reversed(flags(here)[:3]), *flags(here)[3:]]
    run.main([*several, "--direct_num_workers=2", f"--output={here}/again"])
    assert fingerprints(here / "again") == fingerprints(here / "scored")


def test_deciding_anew_is_running_anew(here):
    run.main([*flags(here, alpha="0.7"), f"--output={here}/direct"])
    scored, output = f"--scored={here}/scored", f"--output={here}/anew"
    decide.main([scored, "--rule=pareto", "--alpha=0.7", output])
    for part in ("shards", "statistics"):
        assert fingerprints(here / "anew" / part) == fingerprints(here / "direct" / part)
    assert manifest(here / "anew")["accounting"] == manifest(here / "direct")["accounting"]


def test_deciding_anew_by_group_and_by_other_scores_is_running_anew(here, capsys):
    """Two classifiers, rules by source and a field, buckets: on two workers, and decided anew."""
    write_classifier(here / "second", seed=1)
    rules = """
    web:
      www.a.example: {rule: pareto, target_fraction: 0.3, target_unit: bytes}
      www.b.example: {rule: top_fraction, target_fraction: 0.2}
      "*": {rule: buckets, copies: [0, 1, 2], target_unit: tokens}
    """
    (here / "rules.yaml").write_text(rules)
    # The host stands in for any column.
    for i in range(2):
        rows = [row | {"host": row.get("url", "").split("/")[2:3]} for row in documents(120, i)]
        rows = [row | {"host": "".join(row["host"])} for row in rows]
        write_jsonl(here / "hosts" / f"{i}.jsonl.gz", rows)
    several = [
        f"--source=web={here}/hosts/*",
        f"--source=wiki={here}/wiki/*",
        "--filter=web",
        "--metadata=host",
        f"--classifier=quality={here}/classifier",
        f"--classifier=edu={here}/second",
        "--seed=5",
    ]
    run.main([*several, "--alpha=4", "--direct_num_workers=1", f"--output={here}/plain"])
    table = shards(here / "plain")
    curated = table["source"].to_numpy() == "wiki"
    odds = log_odds((table["score_edu"].to_numpy() + table["score_quality"].to_numpy()) / 2)
    better = odds[curated].mean() > odds[~curated].mean()
    rule = "(edu + quality) / 2" if better else "1 - (edu + quality) / 2"
    calibrate.main([f"--scored={here}/plain", "--positive=wiki", "--negative=web",
                    f"--combine={rule}", f"--output={here}/calibration.json"])  # fmt: skip
    chosen = [
        f"--combine={rule}",
        f"--calibration={here}/calibration.json",
        f"--rules={here}/rules.yaml",
        "--rules-by=source",
        "--rules-by=host",
    ]
    run.main([*several, *chosen, "--direct_num_workers=2", f"--output={here}/grouped"])
    decide.main([f"--scored={here}/plain", *chosen, "--direct_num_workers=1",
                 f"--output={here}/grouped_again"])  # fmt: skip
    told = capsys.readouterr().out.splitlines()
    assert "rule:   3 rules, by source and host" in told
    *_, kept, repeated = next(line for line in told if "to 1 " in line and "web/*" in line).split()
    assert int(repeated) == 2 * int(kept) > 0
    one, other = (fingerprints(here / name) for name in ("grouped", "grouped_again"))
    assert {n for n in one if one[n] != other[n]} <= {"manifest.json", "README.md", "report.html"}
    used = {*schema.TABLES} - {
        "changes",
        "cluster_sizes",
        "joins",
        "registered_domains",
    }  # of what this run did not do
    assert one.keys() == other.keys() >= {f"statistics/{name}.parquet" for name in used}
    assert manifest(here / "grouped")["rule"] == manifest(here / "grouped_again")["rule"]
    assert (
        manifest(here / "grouped")["classifier"] == manifest(here / "grouped_again")["classifier"]
    )

    table = shards(here / "grouped").filter(pc.field("source") == "web")
    scores = {n: table[f"score_{n}"].to_numpy().astype(float) for n in ("edu", "quality")}
    mean = (scores["edu"] + scores["quality"]) / 2
    fitted = json.loads((here / "calibration.json").read_text())["calibration"]
    odds = log_odds(mean if better else 1 - mean)
    combined = 1 / (1 + np.exp(-(fitted["slope"] * odds + fitted["intercept"])))
    np.testing.assert_allclose(table["quality_score"].to_numpy(), combined, atol=1e-5)
    rest = table.filter(~pc.field("host").isin(["www.a.example", "www.b.example"]))
    words, copies = rest["words"].to_numpy(), rest["copies"].to_numpy()
    for times in range(3):
        assert words[copies == times].sum() / words.sum() == pytest.approx(1 / 3, abs=0.05)
    # What is twice in the training order is counted twice.
    corpus = prepare(
        PrepareConfig(
            str(here / "grouped"), str(here / "corpus"),
            TokenizerConfig(vocabulary=300, sample_bytes=10**6, boundary="<eos>"), 0.1, 1,
        )
    )  # fmt: skip
    arm = corpus.arm("filtered")
    assert (
        arm.about["sources"]["web"]["documents"]
        == corpus.column("copies")[corpus.pool & corpus.filterable].sum()
    )


@pytest.mark.parametrize(
    ("rule", "unit"),
    [("pareto", "documents"), ("pareto", "bytes"), ("threshold", "tokens"), ("random", "bytes")],
)
def test_a_target_fraction_is_met(here, rule, unit):
    output = here / f"target_{rule}_{unit}"
    more = [f"--rule={rule}", "--target-fraction=0.3", f"--target-unit={unit}"]
    run.main([*[f for f in flags(here) if "alpha" not in f], *more, f"--output={output}"])
    web = shards(output).to_pandas().query("source == 'web'")
    weight = {"documents": web["bytes"] ** 0, "bytes": web["bytes"], "tokens": web["words"]}[unit]
    share = weight[web["kept"]].sum() / weight.sum()
    # A solved parameter is as near as one document; a random draw is near in expectation only.
    assert abs(share - 0.3) < (0.06 if rule == "random" else 0.005)


def test_top_fraction_keeps_the_best(here):
    more = ["--rule=top_fraction", "--target-fraction=0.1"]
    flags_ = [f for f in flags(here) if "alpha" not in f]
    run.main([*flags_, *more, f"--output={here}/top"])
    web = shards(here / "top").to_pandas().query("source == 'web'")
    assert web[web["kept"]]["quality_score"].min() > web[~web["kept"]]["quality_score"].max()
    assert web["kept"].mean() == pytest.approx(0.1, abs=0.002)


def test_a_top_fraction_is_met_where_all_scores_are_equal(here, tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"id": str(i), "text": "The same."} for i in range(600)])
    write_jsonl(
        tmp_path / "b.jsonl", [{"id": str(i), "text": "The same."} for i in range(600, 1000)]
    )
    inputs = [f"--source=web={tmp_path}/*.jsonl", "--filter=web", f"--classifier={here}/classifier"]
    before = set()
    for fraction in (0.1, 0.5):
        more = ["--rule=top_fraction", f"--target-fraction={fraction}"]
        run.main([*inputs, *more, f"--output={tmp_path}/{fraction}"])
        kept = shards(tmp_path / str(fraction)).filter(pc.field("kept"))["id"].to_pylist()
        assert len(kept) == fraction * 1000
        assert before <= set(kept)
        before = set(kept)
    decide.main([f"--scored={tmp_path}/0.1", *more, f"--output={tmp_path}/anew"])
    assert fingerprints(tmp_path / "anew" / "shards") == fingerprints(tmp_path / "0.5" / "shards")
    assert manifest(tmp_path / "anew")["rule"] == manifest(tmp_path / "0.5")["rule"]


def test_kept_documents_alone_can_be_written_as_parquet(here):
    run.main([*flags(here), "--write=kept", "--format=parquet", f"--output={here}/kept"])
    everything = shards(here / "scored")
    files = sorted((here / "kept/shards").iterdir())
    assert {path.suffix for path in files} == {".parquet"}
    kept = pa.concat_tables([pq.read_table(path) for path in files])
    assert kept.to_pylist() == everything.filter(everything["kept"]).to_pylist()
    account = manifest(here / "scored")["accounting"]
    assert manifest(here / "kept")["accounting"] == account
    with pytest.raises(ValueError, match="--write kept"):
        decide.main([f"--scored={here}/kept", "--alpha=3", f"--output={here}/no"])


def test_exact_duplicates_are_dropped_but_for_the_first(tmp_path):
    rows = [{"url": row.get("url"), "text": row["text"]} for row in documents(40)]
    write_classifier(tmp_path / "classifier")
    score = load_classifier(str(tmp_path / "classifier")).score(pa.array(r["text"] for r in rows))
    best = [rows[i] for i in np.argsort(-score)[:10]]
    write_jsonl(tmp_path / "web" / "a.jsonl", [*rows, *best])
    write_jsonl(tmp_path / "web" / "b.jsonl", best * 4)
    write_jsonl(tmp_path / "wiki" / "a.jsonl", [{"text": rows[3]["text"]}])
    more = ["--rule=all", "--deduplicate"]
    flags_ = [f for f in flags(tmp_path, *more) if "alpha" not in f and ".gz" not in f]
    run.main([*flags_, f"--output={tmp_path}/scored"])
    table = shards(tmp_path / "scored").to_pandas()
    assert table[table["kept"]]["text"].is_unique
    assert set(table[table["kept"]]["text"]) == {row["text"] for row in rows}
    assert table[table["source"] == "wiki"]["kept"].all()
    texts = {row["text"] for row in rows}
    dropped = manifest(tmp_path / "scored")["accounting"]["web"]["duplicate"]
    assert dropped == 90 - (len(texts) - 1)  # one of them is in the wiki, which passes through

    # The fraction is of what is left, at once and later.
    wanted = ["--rule=top_fraction", "--target-fraction=0.3"]
    decide.main([f"--scored={tmp_path}/scored", *wanted, f"--output={tmp_path}/anew"])
    more = [*wanted, "--deduplicate"]
    flags_ = [f for f in flags(tmp_path, *more) if "alpha=2" not in f and ".gz" not in f]
    run.main([*flags_, f"--output={tmp_path}/direct"])
    assert fingerprints(tmp_path / "anew" / "shards") == fingerprints(tmp_path / "direct/shards")
    kept = manifest(tmp_path / "direct")["accounting"]["web"]["kept"]
    assert kept == round(0.3 * (len(texts) - 1))


def test_documents_that_the_classifier_has_learned_from_are_counted_and_told(here):
    written = manifest(here / "scored")
    counts = {}
    for task in written["tasks"]:
        source = task["task"]["source"]
        counts[source] = counts.get(source, 0) + task["trained_on"]
    assert counts == {"web": 40, "wiki": 9}
    (line,) = run_notes.trained_on(
        written
    )  # a source that is taken whole may be what it learned from
    assert line.startswith("the classifier was trained on 40 of the 700 documents of web")
    assert scored.learned_share(str(here / "scored")) == {"web": 40 / 700, "wiki": 9 / 60}


def test_every_rule_can_be_switched_off(here, tmp_path):
    """As steps.yaml says: by .inf for a max and -.inf for a min, of which JSON has neither."""
    off = {}
    for step in ("gopher", "gopher_repetition", "c4", "fineweb"):
        for name, value in resolve_steps([step])[step].items():
            infinite = {"max": float("inf"), "min": float("-inf")}.get(name[:3])
            if infinite is not None:
                several = [infinite] * len(value) if isinstance(value, list) else infinite
                off.setdefault(step, {})[name] = several
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"steps": off}))
    command = [f"--source=web={here}/web/4.jsonl", "--filter=web", "--rule=all"]
    command += [f"--classifier={here}/classifier", f"--config={tmp_path}/config.yaml"]
    run.main([*command, f"--output={tmp_path}/scored"])
    run.main([*command, f"--output={tmp_path}/scored", "--resume"])
    written = (tmp_path / "scored" / "manifest.json").read_text()
    found = json.loads(written, parse_constant=pytest.fail)
    assert found["config"]["steps"]["gopher"]["max_words"] == ".inf"
    assert found["config"]["steps"]["gopher"]["min_words"] == "-.inf"
    assert found["config"]["steps"]["gopher_repetition"]["max_top_n_gram"] == [".inf"] * 3
    reasons = found["accounting"]["web"].keys() - {"read", "kept"}
    assert reasons <= {"c4_lorem_ipsum", "c4_curly_bracket"}  # these have no threshold


def test_yaml_says_the_same_as_flags(here, tmp_path):
    config = {
        "source": {"web": [f"{here}/web/*.gz", f"{here}/web/*.jsonl"], "wiki": f"{here}/wiki/*"},
        "filter": ["web"],
        "classifier": f"{here}/classifier",
        "alpha": 9,
        "seed": 5,
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    output = f"--output={tmp_path}/scored"
    run.main([f"--config={tmp_path}/config.yaml", "--alpha=2", output])
    assert fingerprints(tmp_path / "scored" / "shards") == fingerprints(here / "scored" / "shards")
