"""Language, URL block list and decontamination; and what build_steps says to wrong settings."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import unicodedata
from types import ModuleType
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.output.schema import shard_schema
from pipeline.readers.decoders import zstd
from pipeline.settings.step_settings import resolve_steps
from pipeline.steps import build_steps, input_files, language
from pipeline.steps.decontamination import n_gram_set, overlaps
from pipeline.steps.evaluation_files import read_evaluation_file
from pipeline.steps.urls import host_hashes, on_hosts
from quality_classifier.kinds import fasttext_model
from quality_classifier.kinds.fasttext_model import fasttext_module
from winnow.text.groups import domain
from winnow.text.hosts import normal_host


def build(name, **changes):
    (step,) = build_steps(resolve_steps({name: changes}))
    return step


def batch(**columns):
    schema = pa.schema([shard_schema().field(name) for name in columns])
    pairs = zip(columns.values(), schema, strict=True)
    arrays = [pa.array(values, field.type) for values, field in pairs]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def reasons(step, rows):
    out, codes = step(rows)
    assert len(codes) == len(rows)
    return out, [None if code == 0 else step.reasons[code - 1] for code in codes.tolist()]


# Language


TEXTS = {
    "en": "The committee will meet on Thursday to discuss the new budget for schools.\n",
    "de": "Der Ausschuss trifft sich am Donnerstag, um den neuen Haushalt zu besprechen.\n",
    "fr": "Le comité se réunira jeudi pour discuter du nouveau budget des écoles.\n",
    "ja": "委員会は木曜日に会合を開き、学校の新しい予算について話し合います。\n",
}


def labelled(texts):
    nothing = [None] * len(texts)
    return batch(text=texts, language=nothing, language_score=nothing)


def test_languages_are_told_apart_and_only_wanted_ones_pass():
    rows = labelled(["", *TEXTS.values(), "ok"])[1:]
    out, found = reasons(build("language"), rows)
    assert out["language"].to_pylist()[:4] == list(TEXTS)
    assert found == [None, "language", "language", "language", found[4]]
    assert found[4] in ("language", "language_score")
    assert out.schema == rows.schema
    assert all(0 < score <= 1 for score in out["language_score"].to_pylist())
    out, found = reasons(build("language", languages=["de", "ja"], min_score=0.0), rows)
    assert found[:4] == ["language", None, "language", None]
    out, found = reasons(build("language", languages=[]), rows)
    assert found == [None] * 5
    assert out["language"].to_pylist()[:4] == list(TEXTS)


def test_language_reads_past_newlines_and_fasttexts_end_mark_but_not_past_its_limit():
    german = TEXTS["de"] * 4
    texts = [f"The\n{german}", f"The </s> {german}", f"\n\n{german}", german.replace(" ", "\n")]
    out, _ = reasons(build("language"), labelled(texts))
    assert out["language"].to_pylist() == ["de"] * 4
    clipped = [TEXTS["en"] + german, "é" * 10 + german, ""]
    out, _ = reasons(build("language", max_characters=len(TEXTS["en"])), labelled(clipped))
    assert out["language"].to_pylist()[0] == "en"


def test_a_language_that_the_model_does_not_know_is_an_error():
    with pytest.raises(
        ValueError, match=r"step language: lid.176 has no language 'english': .* en"
    ):
        build("language", languages=["en", "english"])


def train_language_model(lines, output, **options):
    """By a process of its own, whose memory starts as zeros: fastText relies on that."""
    output.with_suffix(".txt").write_text(lines)
    options = {"input": str(output.with_suffix(".txt")), "thread": 1, "verbose": 0, **options}
    subprocess.run(
        [sys.executable, "-c", fasttext_model._TRAIN, str(output)],
        input=json.dumps(options).encode(),
        env=os.environ | {"MALLOC_PERTURB_": "255"},
        check=True,
    )
    return output


@pytest.fixture(scope="module")
def own_model(tmp_path_factory):
    """A model in the manner of GlotLID, with its kind of labels."""
    lines = "".join(f"__label__{code} {TEXTS[lid]}" for code, lid in OWN_LABELS.items()) * 20
    output = tmp_path_factory.mktemp("language") / "own.bin"
    return train_language_model(lines, output, dim=8, epoch=50, lr=1.0, minn=2, maxn=4, bucket=5000)


OWN_LABELS = {"eng_Latn": "en", "deu_Latn": "de", "jpn_Jpan": "ja"}


def test_a_model_of_the_users_own_takes_the_place_of_lid_176(own_model):
    step = build("language", model=str(own_model), languages=["deu_Latn"], min_score=0.0)
    rows = labelled([TEXTS[name] for name in OWN_LABELS.values()])
    out, found = reasons(step, rows)
    assert out["language"].to_pylist() == list(OWN_LABELS)
    assert found == ["language", None, "language"]
    with pytest.raises(ValueError, match=r"own.bin has no language 'deu': .* 3 codes are deu_Latn"):
        build("language", model=str(own_model), languages=["deu"])
    settings = resolve_steps({"language": {"model": str(own_model)}, "c4": {}})
    assert input_files(settings) == [str(own_model)]
    assert input_files(resolve_steps(["language"])) == []


def test_a_text_of_which_the_model_knows_nothing_has_no_language(tmp_path):
    lines = "".join(f"__label__{label} {f'{label}{label} ' * 9}\n" for label in "xy") * 5
    # A line's end comes 10 times, and so is not learnt; a word comes 45 times.
    own = train_language_model(lines, tmp_path / "own.bin", dim=2, minCount=20, bucket=0)
    rows = labelled(["xx xx", "zz", ""])
    step = build("language", model=str(own), languages=["x"], min_score=0.0)
    out, found = reasons(step, rows)
    assert out["language"].is_null().to_pylist() == [False, True, True]
    assert out["language_score"].is_null().to_pylist() == [False, True, True]
    assert found[1:] == ["language", "language"]
    _, found = reasons(build("language", model=str(own), languages=[]), rows)
    assert found == [None] * 3


def test_a_file_that_is_no_whole_language_model_is_an_error(own_model, tmp_path):
    whole = own_model.read_bytes()
    wrong = {"cut off or damaged": whole[:-9], "not a fastText model": b"text" * 99}
    for reason, content in wrong.items():
        path = tmp_path / reason[:3]
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"step language: {path} is {reason}"):
            build("language", model=str(path))
    with pytest.raises(ValueError, match=r"step language: cannot read .*nothing: No such file"):
        build("language", model=str(tmp_path / "nothing"))


def test_another_lid_176_than_fasttexts_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(language, "LID_176", tmp_path / "lid.176.ftz")
    language._model.cache_clear()
    with pytest.raises(ValueError, match="missing or damaged: install Winnow again"):
        build("language")
    language.LID_176.write_bytes(b"another")
    with pytest.raises(ValueError, match="missing or damaged: install Winnow again"):
        build("language")


def test_a_fasttext_module_of_another_package_is_an_error(monkeypatch):
    other = ModuleType("fasttext")
    other.__file__ = "site-packages/fasttext/__init__.py"
    monkeypatch.setitem(sys.modules, "fasttext", other)
    language._model.cache_clear()
    fasttext_module.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"is not fasttext-numpy2's: .*--force-reinstall"):
            build("language")
    finally:
        fasttext_module.cache_clear()


# URL block list


HOSTS = ["a.com", "b.com", "x.a.com", "xa.com", "com", "a.co.uk", "A.com", "www.a.com", "a.com."]
urls = st.one_of(
    st.none(),
    st.sampled_from(["", "a.com", "http://", "nothing at all", "http://user:a.com@b.com/"]),
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["http", "https", "HTTP"]),
        st.sampled_from([*HOSTS, "deep.x.a.com", "a.com.b.com"]),
        st.sampled_from(["", ":80"]),
        st.sampled_from(["", "/", "/a.com", "?q=a.com", "#a.com"]),
    ),
)


@given(st.lists(urls, max_size=8), st.lists(st.sampled_from(HOSTS), max_size=3))
@settings(max_examples=120, deadline=None)
def test_hosts_are_blocked_with_everything_below_them(values, domains):
    names = {domain.lower().strip(".").removeprefix("www.") for domain in domains}
    listed = [normal_host(domain).removeprefix("www.") for domain in domains]

    def blocked(url):
        host = (urlsplit(url).hostname or "") if url and "://" in url else url or ""
        labels = host.strip(".").removeprefix("www.").split(".")
        return any(".".join(labels[i:]) in names for i in range(len(labels)))

    column = pa.array([None, *values], pa.string())[1:]
    assert on_hosts(column, host_hashes(listed)).tolist() == [blocked(url) for url in values]


LISTED = {
    "bad.example": [
        *("http://bad.example/x", "<http://bad.example/x>", "HTTP://BAD.EXAMPLE/x", "bad.example"),
        *("http://bad.example:8080/x", "http://user:pw@bad.example/x", "http://bad.example./x"),
        *("//bad.example/x", "bad.example/x", "bad.example:80/x", " http://bad.example/x\n"),
        *("http://sub.bad.example?x", "http://bad.example#f", "http://bad.example\\x"),
        *("http://bad\u3002example/x", "https:/bad.example/x", "http:///bad.example/x"),
        *("http://%62ad.example/x", "ftp://bad.example", "view-source:http://bad.example/"),
        *("http://good.example@bad.example/", "http://bad.exa\tmple/x", "http:bad.example"),
        *(
            "urn:pageinfo:http://bad.example/x",
            "http://ｂａｄ.example/",
            "http://www.www.bad.example",
        ),
    ],
    "bücher.example": [
        *(
            "http://bücher.example/x",
            "http://xn--bcher-kva.example/x",
            "http://B\u00dcCHER.example",
        ),
        *(
            "http://bu\u0308cher.example",
            "http://XN--BCHER-KVA.EXAMPLE:1/",
            "//xn--bcher-kva.example",
        ),
    ],
    "faß.example": ["http://faß.example", "https://xn--fa-hia.example/"],
    "💩.example": ["http://💩.example", "https://xn--ls8h.example/"],
    "1.2.3.4": ["http://1.2.3.4/x", "http://0x1.0x2.3.4", "http://16909060:80/", "http://1.2.772"],
    "[::1]": ["http://[::1]/x", "http://[0:0:0:0:0:0:0:1]:80/", "//[::1]"],
}
UNLISTED = [
    *(
        "http://notbad.example/",
        "http://good.example/?u=http://bad.example/",
        "mailto:a@good.example",
    ),
    *(
        "http://fass.example",
        "http://good.example/bad.example",
        "file:///bad.example",
        "/bad.example",
    ),
    *("http://bad.example.good.example", "http://bad.example@good.example", "urn:bad.example", ""),
    *(
        "http://[bad.example]/",
        "http://bad example/",
        "http://1.2.3",
        "http://[::2]/",
        "index.html",
    ),
]


@pytest.mark.parametrize(
    "line",
    ["{}", "\ufeff{}", "*.{}", ".{}.", "0.0.0.0\t{} x.org # y", "||{}^", "{}\r", "  {} # why"],
)
def test_one_normal_form_of_hosts_in_lists_urls_and_statistics(tmp_path, line):
    (tmp_path / "list").write_text("\n".join(line.format(name) for name in LISTED))
    rows = [(url, name) for name, found in LISTED.items() for url in found]
    rows += [(url, None) for url in UNLISTED]
    step = build("url_blocklist", domains=[str(tmp_path / "list")])
    _, found = reasons(step, batch(url=[url for url, _ in rows]))
    expected = ["url_domain" if name else None for _, name in rows]
    assert dict(zip(rows, found, strict=True)) == dict(zip(rows, expected, strict=True))
    names = domain(pa.array([url for url, _ in rows])).to_pylist()
    for (_, name), host in zip(rows, names, strict=True):
        if name and name != "bad.example":  # below which there are others
            assert host == normal_host(name)


@pytest.mark.parametrize("line", ["http://bad.example/x", "two words", "a/b", "*", "*.*", "x..y"])
def test_a_line_that_can_block_nothing_is_an_error(tmp_path, line):
    (tmp_path / "list").write_text(f"fine.example\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2 of the list .*list is not a domain"):
        build("url_blocklist", domains=[str(tmp_path / "list")])


@pytest.mark.slow
def test_a_list_of_very_many_words(tmp_path):
    (tmp_path / "words").write_text("".join(f"word{i}\n" for i in range(300_000)))
    files = [str(tmp_path / "words")]
    step = build("url_blocklist", words=files, substrings=files)
    urls = ["http://a.example/word299999", "http://a.example/xword299999x", "http://a.example/word"]
    assert reasons(step, batch(url=urls))[1] == ["url_word", "url_substring", None]


def test_url_words_stand_alone_and_substrings_do_not(tmp_path):
    (tmp_path / "domains").write_text("# ours\nbad.example\n\n")
    (tmp_path / "words").write_text("casino\n")
    (tmp_path / "substrings").write_text("p0rn\n.onion/\n")
    files = {key: [str(tmp_path / key)] for key in ("domains", "words", "substrings")}
    rows = {
        "https://news.bad.example/casino": "url_domain",
        "https://good.example/the-Casino-guide": "url_word",
        "https://good.example/casinos": None,
        "https://xp0rnx.example/": "url_substring",
        "http://abc.onion/x": "url_substring",
        "http://abc-onion/x": None,
    }
    _, found = reasons(build("url_blocklist", **files), batch(url=[*rows, None]))
    assert found == [*rows.values(), None]


@pytest.mark.parametrize("entry", ["*.x.example", "casino*", "*"])
def test_a_wildcard_in_words_or_substrings_is_an_error(tmp_path, entry):
    (tmp_path / "list").write_text(f"fine\n{entry}\n")
    for setting in ("words", "substrings"):
        with pytest.raises(ValueError, match=r"'\*' is not a wildcard"):
            build("url_blocklist", **{setting: [str(tmp_path / "list")]})


# Decontamination


def normalised(text):
    plain = unicodedata.normalize("NFD", text)
    words = ("".join(c.lower()[0] for c in word if c.isalnum()) for word in plain.split())
    return [word for word in words if word]


def n_grams(text, n):
    words = normalised(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


HINDI = ("\u0958", "\u0915\u093c", "\u0915")  # one letter in both normal forms, and without its dot
HAN = ("한글", "\u1112\u1161\u11ab글")

spaced = st.lists(
    st.sampled_from(
        [*"aAÉéßİc하", "E\u0301", "b,", "(b)", "--", "\n", "日本", "\u2003", *HINDI, *HAN]
    ),
    max_size=25,
).map(" ".join)


@given(st.lists(spaced, min_size=1, max_size=4), st.lists(spaced | st.text(), max_size=5))
@settings(max_examples=120, deadline=None)
def test_every_shared_n_gram_is_found_and_no_other(evaluation, texts):
    for n in (1, 2, 4):
        known = set().union(*(n_grams(text, n) for text in evaluation))
        column = pa.array(["first", *evaluation], pa.large_string())[1:]
        if not known:
            with pytest.raises(ValueError, match="no evaluation text has"):
                n_gram_set(column, n)
            continue
        table = n_gram_set(column, n)
        found = overlaps(pa.array(["a", *texts], pa.large_string())[1:], table, n)
        assert found.tolist() == [bool(n_grams(text, n) & known) for text in texts]


QUESTION = "Which of these two birds, the heron or the wren, builds its nest nearer the water?"


def test_contaminated_documents_are_dropped_whatever_their_punctuation_and_case(tmp_path):
    path = tmp_path / "task.jsonl"
    record = {"id": 1, "question": QUESTION, "choices": [{"text": " ".join("abcdefghijklmn")}]}
    path.write_text(json.dumps(record) + "\n\n")
    texts = [
        "It asks: " + QUESTION.upper().replace(",", " --") + " And so on.",
        "\n".join(QUESTION.split()[2:]),
        " ".join(QUESTION.split()[:12]),
        "so we say a b c d e f g h i j k l m and",
    ]
    rows = batch(text=texts)
    every = build("decontamination", files=[str(tmp_path / "*.jsonl")])
    hit = "contaminated"
    assert reasons(every, rows)[1] == [hit, hit, None, hit]
    some = build("decontamination", files=[str(path)], fields=["question"])
    assert reasons(some, rows)[1] == [hit, hit, None, None]
    (tmp_path / "plain.txt").write_text(QUESTION.replace(" ", "\n"))
    plain = build("decontamination", files=[str(tmp_path / "plain.txt")])
    assert reasons(plain, rows)[1] == [hit, hit, None, None]


def test_evaluation_files_that_cannot_be_read_as_meant_are_errors(tmp_path):
    path = tmp_path / "task.jsonl"
    for content, fields, message in [
        (b'{"a": "x"}\n{"a": ', [], "line 2 of .* is not JSON"),
        (b'{"a": "x"}', ["b"], "no record of .* has the fields \\['b'\\]"),
        (b'["x"]', ["b"], "record 1 of .* has no fields"),
        (b'"\xff"', [], "not UTF-8"),
        (b'"\0"', [], "is not text"),
        (b"[" * 100_000, [], "nested too deeply"),
        (b'{"a": null}', ["a"], "no record of .* has the fields"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_evaluation_file(str(path), fields)
    path.write_text('{"a": "x", "b": ["y", {"c": "z", "d": 3}]}')
    assert read_evaluation_file(str(path), []).texts == ["x", "y", "z"]
    path.write_text('"a b"')
    with pytest.raises(ValueError, match=r"no text of .*task.jsonl has 13 words"):
        build("decontamination", files=[str(path)])
    with pytest.raises(ValueError, match="nothing matches"):
        build("decontamination", files=[str(tmp_path / "*.none")])


RECORDS = [
    {"question": QUESTION + ' "É\u2028"', "answer": "The heron.", "n": 1},
    {"question": "Too short\nfor it, that is,; ", "answer": " ".join("abcdefghijklmn"), "n": 2},
]


def evaluation_files():
    """The records in every form, by file name."""
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    table = pa.Table.from_pylist(RECORDS)
    sinks = {name: io.BytesIO() for name in ("parquet", "arrow", "stream")}
    pq.write_table(table, sinks["parquet"])
    for name, new in (("arrow", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
        with new(sinks[name], table.schema) as writer:
            writer.write_table(table)
    text = {
        "a.jsonl": lines,
        "a.JSONL": lines,
        "a.ndjson": lines.replace("\n", "\r\n"),
        "a.json": json.dumps(RECORDS, indent=1),
        "b.json": json.dumps(RECORDS, ensure_ascii=False),
        "no_name": lines,
        "records.txt": lines,
    }
    for name, delimiter in (("a.csv", ","), ("b.CSV", ";"), ("a.tsv", "\t")):
        file = io.StringIO()
        writer = csv.DictWriter(file, RECORDS[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(RECORDS)
        text[name] = text[f"{name} by content"] = file.getvalue()
    files = {name: content.encode() for name, content in text.items()}
    files |= {name: sink.getvalue() for name, sink in sinks.items()}
    files |= {f"bom.{name}": b"\xef\xbb\xbf" + content.encode() for name, content in text.items()}
    files["utf16.json"] = text["b.json"].encode("utf-16")
    files |= {f"{name}.gz": gzip.compress(files[name]) for name in list(files)}
    first, last = io.BytesIO(), io.BytesIO()
    for sink, part in ((first, table[:1]), (last, table[1:])):
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(part)
    files["two streams"] = first.getvalue() + last.getvalue()
    files["two.jsonl.gz"] = b"".join(gzip.compress(line) for line in lines.encode().splitlines())
    files["a.jsonl.zst"] = zstd.compress(files["a.jsonl"])
    return files


@pytest.mark.parametrize("name", evaluation_files())
def test_evaluation_files_are_read_by_what_is_in_them(tmp_path, name):
    (tmp_path / name).write_bytes(evaluation_files()[name])
    found = read_evaluation_file(str(tmp_path / name), ["question"])
    assert found.texts == [record["question"] for record in RECORDS]
    texts = read_evaluation_file(str(tmp_path / name), []).texts
    wanted = [record[key] for record in RECORDS for key in ("question", "answer")]
    assert set(texts) - {"1", "2"} == set(wanted)
    with pytest.raises(ValueError, match=r"has the fields \['prompt'\]"):
        read_evaluation_file(str(tmp_path / name), ["prompt"])
    step = build("decontamination", files=[f"{tmp_path}/*"], fields=["answer"])
    assert step.notes == [
        f"decontamination: {tmp_path}/{name}: 2 13-grams of 2 records",
        f"warning: decontamination: {tmp_path}/{name}: 1 of 2 records have no text of 13 words",
    ]


def test_plain_text_that_looks_like_json_at_first_is_plain_text(tmp_path):
    for text in (
        *("[1] A note.", "[1]\nA note.", "{x} is a set", "{} is one too", "\ufeffplain", ""),
        *('"No," he said.', '"No", he said,\nand, then, left', "Then,there\nwere,two,more"),
    ):
        (tmp_path / "note.txt").write_text(text)
        assert read_evaluation_file(str(tmp_path / "note.txt"), []).texts == [text.strip("\ufeff")]
    with pytest.raises(ValueError, match=r"note.txt is plain text, which has no fields"):
        read_evaluation_file(str(tmp_path / "note.txt"), ["question"])


def test_fields_may_lie_deeper_than_the_record(tmp_path):
    path = tmp_path / "squad.json"
    part = {"paragraphs": [{"context": "c", "qas": [{"question": "q"}, {"question": "r"}]}]}
    path.write_text(json.dumps({"data": [part, {"question": ["s", {"question": "t"}], "x": "u"}]}))
    assert read_evaluation_file(str(path), ["question"]).texts == ["q", "r", "s", "t"]
    path.write_text(json.dumps({"question": "q", "of": {"question": "r"}}))
    assert read_evaluation_file(str(path), ["question"]).texts == ["q"]


def test_records_without_the_field_are_counted(tmp_path):
    path = tmp_path / "task.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [*RECORDS, {"other": "x"}]))
    step = build("decontamination", files=[str(path)], fields=["answer"])
    assert step.notes == [
        f"decontamination: {path}: 2 13-grams of 3 records",
        f"warning: decontamination: {path}: 1 of 3 records have no field 'answer'",
        f"warning: decontamination: {path}: 2 of 3 records have no text of 13 words",
    ]


def test_parts_of_a_file_are_not_passed_over(tmp_path):
    for name, content, message in [
        ("a.csv", b"a,b\nx,y, and z\n", "row 2 of .* has 3 cells, not 2"),
        ("a.csv", b'a,b\n"x"y,z\n', "can't be read as CSV"),
        ("a.txt", b'{"a": "x"}\n{"a"', "line 2 of .* is not JSON"),
        ("a.txt", b'[{"a": "x"},\n{"a"', "line 2 of .* is not JSON"),
        ("two", 2 * evaluation_files()["parquet"], "several files in one"),
        ("two", 2 * evaluation_files()["arrow"], "several files in one"),
        ("two", evaluation_files()["stream"] + b"more than that", "can't be read"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_evaluation_file(str(tmp_path / name), [])


@pytest.mark.parametrize("cut", ["a.jsonl.gz", "parquet", "arrow"])
def test_a_damaged_evaluation_file_is_an_error(tmp_path, cut):
    (tmp_path / cut).write_bytes(evaluation_files()[cut][:-40])
    with pytest.raises(ValueError, match=f"{cut} (is damaged|can't be read)"):
        read_evaluation_file(str(tmp_path / cut), [])


# Settings


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gopher", {"min_word": 3}, "step gopher: no setting .*min_word.*min_words"),
        ("gopher", {"min_words": "many"}, "step gopher: min_words must be a number, not 'many'"),
        ("gopher", {"min_words": True}, "min_words must be a number"),
        ("gopher", {"min_words": None}, "min_words must be a number"),
        ("fineweb", {"short_line_characters": 3.5}, "must be a whole number"),
        ("gopher", {"max_hash_ratio": float("nan")}, "max_hash_ratio must be a number, not nan"),
        ("gopher_repetition", {"max_top_n_gram": [0.1, float("nan"), 0.1]}, "a list of numbers"),
        ("c4", {"max_word_characters": 1 << 63}, "must be a whole number of 64 bits"),
        ("decontamination", {"n": float("inf")}, "n is from 1 to 1000"),
        ("gopher_repetition", {"max_top_n_gram": [0.2]}, "max_top_n_gram needs 3 values"),
        ("language", {"languages": "en"}, "languages must be a list of text"),
        ("url_blocklist", {}, "step url_blocklist: no list is given"),
        ("c4", {"bad_words": ["nowhere/*.txt"]}, "step c4: nothing matches"),
        ("decontamination", {}, "step decontamination: no evaluation files"),
        ("decontamination", {"n": 0}, "n is from 1 to 1000, not 0"),
    ],
)
def test_wrong_settings_are_named(name, changes, message):
    with pytest.raises(ValueError, match=message):
        build(name, **changes)


def test_unknown_steps_and_missing_settings_are_named():
    with pytest.raises(ValueError, match=r"unknown step 'gofer'; known are .*gopher"):
        build_steps({"gofer": {}})
    with pytest.raises(ValueError, match=r"step fineweb: the settings .*line_ends.* are missing"):
        build_steps({"fineweb": {}})


def test_reasons_are_distinct_and_steps_keep_their_order():
    names = ["fineweb", "gopher", "c4", "gopher_repetition"]
    steps = build_steps(json.loads(json.dumps(resolve_steps(names))))
    firsts = [step.reasons[0].split("_")[0] for step in steps]
    every = [reason for step in steps for reason in step.reasons]
    assert len(every) == len(set(every))
    assert firsts == ["fineweb", "gopher", "c4", "gopher"]


def test_an_empty_batch_goes_through_every_step(tmp_path):
    (tmp_path / "list").write_text("word\n")
    (tmp_path / "eval.txt").write_text("a b c")
    steps = {
        **{name: {} for name in ("gopher", "gopher_repetition", "c4", "fineweb")},
        "url_blocklist": {"domains": [str(tmp_path / "list")]},
        "decontamination": {"files": [str(tmp_path / "eval.txt")], "n": 2},
    }
    rows = pa.RecordBatch.from_pylist([], schema=shard_schema())
    for step in build_steps(resolve_steps(steps)):
        out, codes = step(rows)
        assert len(codes) == 0
        assert np.issubdtype(codes.dtype, np.integer)
        assert out.schema == shard_schema()
