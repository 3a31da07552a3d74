"""Steps over a few documents, and what each of them decides."""

import pyarrow as pa
from hypothesis import strategies as st

from pipeline.output.schema import shard_schema
from pipeline.settings.step_settings import resolve_steps
from pipeline.steps import build_steps

EDGES = ["", "\n", "\n\n\n", " ", "\r\n\r\n", "x", "x\n", "\n\nx", "a" * 5000, "a b " * 700]


def array(texts):
    """The texts as a slice of a larger array, so that offsets do not start at 0."""
    return pa.array(["before", *texts], pa.large_string())[1:]


def bare(word):
    """The word without what is neither letter nor digit at its ends, in lower case."""
    while word and not word[0].isalnum():
        word = word[1:]
    while word and not word[-1].isalnum():
        word = word[:-1]
    return word.lower() if word.isascii() else word


def check(measured, expected):
    """Fields of arrays [n] or [*, n] against n tuples of numbers or lists."""
    for name, values in zip(measured._fields, measured, strict=True):
        wanted = [getattr(one, name) for one in expected]
        assert values.T.tolist() == wanted, name


def configured(name, **changes):
    """The step with the settings of conf/pipeline/steps.yaml, but for the changes."""
    (step,) = build_steps(resolve_steps({name: changes}))
    return step


def batch(**columns):
    """A batch of the columns, with their types in shards."""
    schema = pa.schema([shard_schema().field(name) for name in columns])
    pairs = zip(columns.values(), schema, strict=True)
    arrays = [pa.array(values, field.type) for values, field in pairs]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def reasons(step, rows):
    """The step's batch, and the drop reason of each row, or None."""
    out, codes = step(rows)
    assert len(codes) == len(rows)
    return out, [None if code == 0 else step.reasons[code - 1] for code in codes.tolist()]


def verdict(name, text, **changes):
    """The drop reason that the step gives the text, or None."""
    step = configured(name, **changes)
    batch = pa.RecordBatch.from_arrays([pa.array([text], pa.large_string())], names=["text"])
    same, (code,) = step(batch)
    assert same is batch
    return None if code == 0 else step.reasons[code - 1]


SENTENCE = "This line has five words. "


SPACES = " \t\r\n\n\n\x0b\x1c\x85\xa0\u2028　"

PIECES = [
    *("the", "The", "and", "with", "of", "to", "be", "that", "have", "a", "i", "word", "Word"),
    *("naïve", "1", "3.14", "mid-word"),
    *("the,", "“with”", "'of'", "(be)", "theé", "to1", "that's", "...and"),
    *("#", "##", "...", "....", "......", "…", "•", "-", "- item", "• item", "{", "}", "{x}"),
    *(
        "。",
        "！」",
        ".",
        "!",
        "?",
        '."',
        '?")',
        ".'",
        "日本語です。",
        "汉字",
        "😀",
        "é",
        "e\u0301",
        "\x00",
    ),
    *("lorem ipsum", "Lorem Ipsum", "lorem", "javascript", "JavaScript!", "use cookies"),
    *("Terms of Use", "privacy policy.", "uses cookies", "use of cookies", "cookie policy"),
    *("one two three four five.", "A whole line of six words here.", "ends in dots...", "x" * 20),
]

documents = st.lists(
    st.lists(
        st.one_of(st.sampled_from(PIECES), st.sampled_from([*SPACES, "\n", " ", " ", " "])),
        max_size=60,
    ).map("".join),
    max_size=4,
)
