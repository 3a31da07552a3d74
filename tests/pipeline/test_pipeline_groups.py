"""Rules per group and buckets, against plain loops over documents."""

import numpy as np
import pyarrow as pa
import pytest
import xxhash
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from report_run import scored

from pipeline.config import load
from pipeline.core.scored_documents import with_schema
from pipeline.core.task import decide_batch
from pipeline.output import schema
from pipeline.output.group_counts import check_groups
from pipeline.output.summary import TaskSummary, merge
from pipeline.rules.buckets import Buckets
from pipeline.rules.decision import Rule
from pipeline.rules.groups import ANY, GroupRules, Groups, decide
from pipeline.settings.decision_settings import Decision
from pipeline.settings.group_settings import check, decision_of, grouped

LANGUAGES = ["en", "de", "fr", None]

RULES = """
web:
  en: {rule: pareto, alpha: 3}
  de: {rule: threshold, target_fraction: 0.25, target_unit: bytes}
  fr: {rule: top_fraction, target_fraction: 0.4, target_unit: tokens}
  "*": {rule: buckets, copies: [0, 1, 3]}
"*": {rule: random, rate: 0.5}
"""


def documents(source, n=600, seed=0, ties=False):
    """Scored documents in several languages; some were dropped by a step."""
    rng = np.random.default_rng([seed, len(source)])
    score = rng.integers(0, 5, n) / 8 if ties else rng.beta(0.6, 1.2, n)
    reasons = [None if r > 0.1 else "gopher_words" for r in rng.random(n)]
    texts = ["word " * k for k in rng.integers(1, 40, n)]
    batch = scored(source, texts, [None] * n, score, reasons=reasons)
    language = pa.array([LANGUAGES[k] for k in rng.integers(0, 4, n)])
    at = batch.schema.get_field_index("language")
    return batch.set_column(at, schema.shard_schema().field("language"), language)


def solved(decision, batches):
    """The rule that tasks and workers find together, each batch being a task."""
    wanted = grouped(decision)
    sketches = [wanted.sketch([batch]) for batch in batches]
    total = tuple(sum(parts) for parts in zip(*sketches, strict=True))
    if not wanted.has_cuts:
        return wanted.solve(total)
    bands = wanted.bands(total)
    return wanted.solve(total, bands, wanted.places(batches, bands))


def decided(rule, batch):
    return decide_batch(with_schema(batch, schema.shard_schema(copies=True)), rule, True)


def rows_of(batch, language):
    reaches = np.array([r is None or r == "quality" for r in batch["drop_reason"].to_pylist()])
    return np.flatnonzero(
        reaches & np.array([v == language for v in batch["language"].to_pylist()])
    )


names = st.sampled_from(["a", "b", "c"])
trees = st.recursive(
    st.just("leaf"),
    lambda below: st.dictionaries(names | st.just(ANY), below, min_size=1),
    max_leaves=8,
)


def paths_of(tree, depth):
    """The paths of the leaves of a tree, which is cut off at a depth."""
    if tree == "leaf" or depth == 0:
        return [()]
    return [(value, *path) for value, below in tree.items() for path in paths_of(below, depth - 1)]


@given(trees, st.lists(st.tuples(names, names, names), min_size=1, max_size=30))
@settings(deadline=None)
def test_a_document_belongs_to_the_path_that_a_walk_down_the_tree_ends_at(tree, rows):
    paths = tuple(paths_of(tree, 3))
    groups = Groups(("x", "y", "z"), paths)
    columns = [pa.array(column) for column in zip(*rows, strict=True)]
    batch = pa.RecordBatch.from_arrays(columns, names=["x", "y", "z"])
    expected = []
    for row in rows:
        at, path = tree, ()
        for value in row:
            if at == "leaf":
                break
            key = value if value in at else ANY
            at, path = at.get(key), (*path, key)
            if at is None:
                break
        expected.append(-1 if at is None else paths.index(path))
    assert groups.of(batch).tolist() == expected


def test_every_document_is_decided_by_its_own_group_alone():
    decision = decision_of({"rules": yaml.safe_load(RULES)})
    batches = [documents("web", seed=0), documents("web", seed=1)]
    rule = solved(decision, batches)
    alone = {
        "en": Decision("pareto", alpha=3.0),
        "de": Decision("threshold", target_fraction=0.25, target_unit="bytes"),
        "fr": Decision("top_fraction", target_fraction=0.4, target_unit="tokens"),
        None: Decision("buckets", copies=[0, 1, 3]),
    }
    for language, own in alone.items():
        parts = [batch.take(pa.array(rows_of(batch, language))) for batch in batches]
        assert all(len(part) > 50 for part in parts)
        expected = [decided(solved(own, parts), part) for part in parts]
        for batch, part in zip(batches, expected, strict=True):
            together = decided(rule, batch).take(pa.array(rows_of(batch, language)))
            assert together.equals(part)
    everything = decided(rule, batches[0])
    dropped = [r == "gopher_words" for r in everything["drop_reason"].to_pylist()]
    assert any(dropped)
    assert not everything.filter(pa.array(dropped))["kept"].true_count


def test_targets_are_met_within_each_group():
    rule = solved(decision_of({"rules": yaml.safe_load(RULES)}), [documents("web", 4000)])
    batch = decided(rule, documents("web", 4000))
    for language, column, wanted in (("de", "bytes", 0.25), ("fr", "words", 0.4)):
        rows = batch.take(pa.array(rows_of(batch, language)))
        weight, kept = rows[column].to_numpy(), rows["kept"].to_numpy(zero_copy_only=False)
        assert weight[kept].sum() / weight.sum() == pytest.approx(wanted, abs=0.005)


def test_decisions_are_nested_in_alpha_within_each_group():
    batch = documents("web")
    kept = {}
    for alpha in (1.0, 4.0):
        rules = {"en": {"rule": "pareto", "alpha": alpha}, "*": {"rule": "pareto", "alpha": 2.0}}
        rule = solved(decision_of({"rules": rules, "rules_by": ["language"]}), [batch])
        kept[alpha] = decided(rule, batch)["kept"].to_numpy(zero_copy_only=False)
    english = np.array([v == "en" for v in batch["language"].to_pylist()])
    assert not (kept[4.0] & ~kept[1.0]).any()
    assert (kept[1.0] & ~kept[4.0]).any()
    assert (kept[1.0] == kept[4.0])[~english].all()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("copies", [[1], [0, 2], [3, 0, 1, 2]])
def test_buckets_are_quantiles_in_the_order_of_score_and_draw(copies, ties):
    batch = documents("web", ties=ties)
    found = decided(solved(Decision("buckets", copies=copies), [batch]), batch)
    reaches = np.array([reason is None for reason in batch["drop_reason"].to_pylist()])
    rows = np.flatnonzero(reaches)
    score, draw = batch["quality_score"].to_numpy()[rows], batch["keep_draw"].to_numpy()[rows]
    order = rows[np.lexsort((-draw, score))]  # the best last
    expected = np.zeros(len(batch), int)
    for part, times in zip(np.array_split(order, len(copies)), copies, strict=True):
        expected[part] = times
    # Where the number is not a multiple of the buckets, a bound's document may lie on either side.
    assert (found["copies"].to_numpy() != expected).sum() < len(copies)
    assert (found["kept"].to_numpy(zero_copy_only=False) == (found["copies"].to_numpy() > 0)).all()


def test_the_probability_of_a_bucket_is_its_share_of_the_draws():
    cuts = (Rule("threshold", 0.5, 0.75), Rule("threshold", 0.5, 0.25), Rule("threshold", 0.75))
    buckets = Buckets(cuts, (1, 0, 2, 0))
    draw = (np.arange(1000) + 0.5) / 1000
    for score, expected in ((0.2, 1.0), (0.5, 0.5), (0.6, 1.0), (0.8, 0.0)):
        scores = np.full(1000, score, np.float32)
        assert (buckets.repeats(scores, draw) > 0).mean() == pytest.approx(expected)
        assert buckets.probability(scores[:1])[0] == pytest.approx(expected)


def test_the_statistics_of_groups_add_up_to_what_was_decided():
    rule = solved(decision_of({"rules": yaml.safe_load(RULES)}), [documents("web")])
    summaries = []
    for source in ("web", "forum"):
        summary = TaskSummary(source, True, rule)
        for part in (documents(source).slice(0, 200), documents(source).slice(200)):
            summary.update(decided(rule, part))
        summaries.append(summary.tables())
    tables = merge(summaries)
    check_groups(tables["rule_groups"], tables["sources"])
    batch = decided(rule, documents("web"))
    none = batch.take(pa.array(rows_of(batch, None)))
    copies, words = none["copies"].to_numpy(), none["words"].to_numpy()
    rows = {
        row["bucket"]: row
        for row in tables["rule_groups"].to_pylist()
        if (row["source"], row["group"]) == ("web", "web/*")
    }
    for bucket, times in enumerate([0, 1, 3]):
        ours = copies == times
        assert rows[bucket]["documents"] == ours.sum()
        assert rows[bucket]["kept_documents"] == ours.sum() * (times > 0)
        assert rows[bucket]["copied_words"] == times * words[ours].sum()
    curves = tables["rule_group_curves"].to_pylist()
    english = batch.take(pa.array(rows_of(batch, "en")))
    (at_three,) = (
        row
        for row in curves
        if (row["group"], row["rule"], row["parameter"]) == ("web/en", "pareto", 3.0)
    )
    assert at_three["documents"] == english["kept"].true_count

    short = tables["rule_groups"].slice(1)
    with pytest.raises(RuntimeError, match="do not add up to what was decided"):
        check_groups(short, tables["sources"])


def test_a_group_without_documents_needs_no_parameter():
    rules = {"xx": {"rule": "top_fraction", "target_fraction": 0.1}, "*": {"rule": "all"}}
    rule = solved(decision_of({"rules": rules, "rules_by": ["language"]}), [documents("web")])
    assert isinstance(rule, GroupRules)
    assert rule.rules == (Rule("all"), Rule("all"))


def test_a_document_that_nobody_has_a_rule_for_is_named():
    rule = solved(
        decision_of({"rules": {"web": {"en": {"rule": "all"}, "de": {"rule": "all"}}}}), []
    )
    batch = documents("web", 1).set_column(8, "language", pa.array(["fr"]))
    with pytest.raises(ValueError, match="no rule is for source 'web', language 'fr'"):
        decide(rule, batch, batch["quality_score"].to_numpy(), np.array([True]))
    unknown = batch.set_column(8, "language", pa.nulls(1, pa.string()))
    with pytest.raises(ValueError, match="--field language=FIELD"):
        decide(rule, unknown, batch["quality_score"].to_numpy(), np.array([True]))
    # A document that a step has dropped needs none.
    assert decide(rule, batch, np.zeros(1, np.float32), np.array([False]))[0].tolist() == [0]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"rules": {"web": {"rule": "pareto"}}}, "rules of web: pareto needs alpha or target_fr"),
        ({"rules": {"web": {"rule": "best"}}}, "rules of web: unknown --rule 'best'"),
        ({"rules": {"web": {"alpha": 3}}}, "rules of web: rule is missing"),
        ({"rules": {"web": {"rule": "all", "aplha": 3}}}, r"unknown keys \['aplha'\]"),
        ({"rules": {"web": {"rule": "pareto", "alpha": "9"}}}, "alpha can't be '9'"),
        ({"rules": {"web": "pareto"}}, "expected a rule"),
        ({"rules": {}}, "expected a rule"),
        ({"rules": {"web": {False: {"rule": "all"}}}}, "put it in quotes"),
        ({"rules": {"a": {"b": {"c": {"rule": "all"}}}}}, "more levels than columns"),
        ({"rules": {"a": {"b": {"rule": "all"}}, "a/b": {"rule": "all"}}}, "have one name"),
        ({"rules": {"web": {"rule": "all"}}, "alpha": 3.0}, "--alpha can't be combined with"),
        ({"rules_by": ["source"]}, "no meaning without --rules"),
        ({"rules": {"web": {"rule": "all"}}, "rules_by": ["url", "url"]}, "each once"),
        ({"rule": "buckets"}, "needs --copies"),
        ({"rule": "buckets", "copies": [0, 1], "buckets": 3}, "2 counts for 3 buckets"),
        ({"rule": "buckets", "copies": [-1, 1]}, "whole numbers from 0"),
        ({"rule": "buckets", "copies": [0, 101]}, "whole numbers from 0"),
        ({"rule": "pareto", "copies": [0, 1]}, "no meaning under --rule pareto"),
        ({"rule": "buckets", "copies": [1], "target_fraction": 0.1}, "no meaning"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(given_, message):
    with pytest.raises(ValueError, match=message):
        decision_of(given_)


def test_columns_and_sources_are_checked_before_the_run():
    columns = schema.shard_schema(["topic"]).names
    all_of = {"rule": "all"}
    check(decision_of({"rules": {"news": all_of}, "rules_by": ["topic"]}), columns, ["web"])
    for settings_, message in (
        ({"rules": {"x": all_of}, "rules_by": ["colour"]}, "add --metadata colour to the run"),
        ({"rules": {"x": all_of}, "rules_by": ["kept"]}, "no such column"),
        ({"rules": {"wiki": all_of, "web": all_of}}, "rules names wiki, but the filtered"),
        ({"rules": {"web": all_of}}, "no rule is for source forum"),
    ):
        with pytest.raises(ValueError, match=message):
            check(decision_of(settings_), columns, ["web", "forum"])


def test_rules_on_the_command_line_are_those_of_a_file(tmp_path):
    flags = ["--source=web=x.jsonl", "--filter=web", "--classifier=c", "--output=o"]
    tree = {"web": {"en": {"rule": "pareto", "alpha": 9}, "*": {"rule": "all"}}}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    text = '{web: {en: {rule: pareto, alpha: 9}, "*": {rule: all}}}'
    (tmp_path / "run.yaml").write_text(f"rules: {text}")
    found = [
        load([*flags, *more])[0].decision
        for more in ([f"--rules={text}"], [f"--rules={tmp_path}/rules.yaml"],
                     [f"--config={tmp_path}/run.yaml"])
    ]  # fmt: skip
    assert found[0] == found[1] == found[2]
    assert found[0].as_settings()["rules"] == tree
    with pytest.raises(ValueError, match=r"there is no file rules\.yaml"):
        load([*flags, "--rules=rules.yaml"])
    with pytest.raises(ValueError, match="--rules is not YAML: line 1"):
        load([*flags, "--rules={web: ["])


def test_a_run_without_groups_states_what_it_stated_before():
    assert Decision().as_settings().keys() == {
        "rule", "alpha", "threshold", "rate", "target_fraction", "target_unit", "deduplicate",
    }  # fmt: skip


def test_the_draw_of_a_group_is_that_of_the_document():
    """The random rule of ``*`` keeps by id and seed, whatever the group."""
    rule = solved(decision_of({"rules": yaml.safe_load(RULES)}), [documents("forum")])
    batch = decided(rule, documents("forum"))
    for row in batch.select(["id", "kept", "drop_reason"]).to_pylist():
        if row["drop_reason"] != "gopher_words":
            drawn = xxhash.xxh3_64_intdigest(row["id"].encode(), 0) >> 11
            assert row["kept"] == (drawn / 2**53 < 0.5)
