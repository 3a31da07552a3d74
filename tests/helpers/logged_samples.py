"""Writes folders in the form of lm-evaluation-harness with ``--log_samples``; the data is invented.

``piqa`` is right or wrong, ``boolq`` has two questions to a passage, ``gsm8k`` two filters,
``wikitext`` pairs of a log-probability and a number of bytes, and ``wmt`` a figure that is no mean.
"""

import hashlib
import json
import math
from pathlib import Path

import numpy as np

DATE = "2026-05-01T10-00-00.123456"
ITEMS = 40
FILTERS = {"gsm8k": ["strict-match", "flexible-extract"]}


def write(folder, lift, seed=0, tasks=("piqa", "boolq"), change=None):
    """Write an evaluation of a model that is better by ``lift`` (in log odds).

    Args:
        folder: to write to; the model has its own folder in it, as with lm-eval.
        lift: of every item.
        seed: of the answers; those of two folders are independent unless seed and lift are alike.
        tasks: names, see above.
        change: called with the results and with the rows of each task, before they are written.
    """
    results = {
        name: {}
        for name in ("results", "versions", "n-shot", "higher_is_better", "configs", "n-samples")
    }
    results |= {"lm_eval_version": "0.4.13", "model_name": "org/model"}
    rng, fixed = np.random.default_rng([seed, int(1000 * lift)]), np.random.default_rng(0)
    rows = {}
    for task in tasks:
        hard = fixed.normal(size=ITEMS)
        rows[task] = [
            row(task, i, name, metrics(task, hard[i] + lift, rng, fixed))
            for name in FILTERS.get(task, ["none"])
            for i in range(ITEMS)
        ]
        results["results"][task] = {"alias": task, **figures(rows[task])}
        results["versions"][task] = 1.0
        results["n-shot"][task] = 0
        results["higher_is_better"][task] = {m: "per" not in m for m in rows[task][0]["metrics"]}
        kind = "multiple_choice" if task in ("piqa", "boolq") else "generate_until"
        means = [m for m in rows[task][0]["metrics"] if m.startswith(("acc", "exact"))]
        results["configs"][task] = {
            "output_type": kind,
            "metric_list": [{"metric": m, "aggregation": "mean"} for m in means],
        }
        results["n-samples"][task] = {"original": ITEMS, "effective": ITEMS}
    if change is not None:
        change(results, rows)
    inner = Path(folder) / "org__model"
    inner.mkdir(parents=True)
    (inner / f"results_{DATE}.json").write_text(json.dumps(results))
    for task, of in rows.items():
        lines = "".join(json.dumps(one) + "\n" for one in of)
        (inner / f"samples_{task}_{DATE}.jsonl").write_text(lines)
    return str(folder)


def row(task, item, filter_name, values):
    doc = {"question": f"{task} {item}"}
    if task == "boolq":
        doc["passage"] = f"passage {item // 2}"
    return {
        "doc_id": item,
        "doc": doc,
        "target": "0",
        "arguments": {"gen_args_0": {"arg_0": "x", "arg_1": " y"}},
        "resps": [[["-1", "False"]]] * 2,
        "filtered_resps": [["-1", "False"]] * 2,
        "filter": filter_name,
        "doc_hash": sha(f"{task} {item}"),
        "prompt_hash": sha(f"prompt of {task} {item}"),
        "target_hash": sha("0"),
        "metrics": list(values),
        **values,
    }


def metrics(task, ability, rng, fixed):
    right = float(rng.random() < 1 / (1 + math.exp(-ability)))
    if task == "gsm8k":
        return {"exact_match": right}
    if task == "wmt":
        return {"bleu": ["an answer", "another"]}
    if task == "wikitext":
        length = int(fixed.integers(500, 5000))
        logprob = -length * math.log(2) * (1 - 0.1 * ability + 0.01 * rng.normal())
        return {"byte_perplexity": [logprob, length], "bits_per_byte": [logprob, length]}
    return {"acc": right, "acc_norm": float(rng.random() < 0.5)}


def figures(rows):
    """What the harness reports, computed as it does."""
    found = {}
    for name in dict.fromkeys(one["filter"] for one in rows):
        of = [one for one in rows if one["filter"] == name]
        for metric in of[0]["metrics"]:
            values = [one[metric] for one in of]
            found[f"{metric}_stderr,{name}"] = "N/A"
            if metric == "bleu":
                found[f"{metric},{name}"] = 23.1
            elif isinstance(values[0], list):
                ratio = -sum(v[0] for v in values) / sum(v[1] for v in values)
                figure = ratio / math.log(2) if metric == "bits_per_byte" else math.exp(ratio)
                found[f"{metric},{name}"] = figure
            else:
                found[f"{metric},{name}"] = float(np.mean(values))
    return found


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def logged(folder, task, metric):
    """The values of a metric in the order of items, read without our reader."""
    (file,) = Path(folder).rglob(f"samples_{task}_*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return np.array([one[metric] for one in rows])
