"""What one process or several answer with a model, as values that can be compared."""

import json
import string
from pathlib import Path

from tokenizers import Tokenizer, decoders, models

from ablations.evaluate import EvaluateConfig, evaluate
from ablations.evaluation.token_model import load_model
from model.generation import GenerateConfig, generate_text
from model.training.distributed import processes
from model.training.train_config import Precision

QUESTIONS = ["the wind", "a grain of wind", "who?", "why did it fall so far", "42"]
TEXTS = ["a whole text, in windows", "", "and one more"]


def write_tokenizer(folder: Path) -> None:
    """One of 96 characters and the boundary: the vocabulary of ``distributed.CONFIG``."""
    names = ["<eos>", *string.printable[:95], "\n"]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))


def write_tasks(folder: Path) -> None:
    rows = {
        "piqa": [{"goal": q, "sol1": "wind", "sol2": "grain", "label": 1} for q in QUESTIONS],
        "natural_questions_open": [{"question": q, "answer": ["wind"]} for q in QUESTIONS],
    }
    for name, records in rows.items():
        for split in ("", ".train"):
            text = "".join(json.dumps(record) + "\n" for record in records)
            (folder / f"{name}{split}.jsonl").write_text(text)


def asked(run: Path, tasks: Path, names: list[str], precision: str = "fp32") -> dict:
    """Answers with the model in a folder; the processes but the first are told of no data."""
    output = run / f"answers_of_{processes.count()}"
    found = evaluate(
        EvaluateConfig(
            run=str(run),
            output=str(output),
            tasks=names,
            shots=0,
            seed=0,
            places=["local"],
            local=str(tasks) if processes.is_first() else None,
            device="cpu",
            precision=precision,
            batch_tokens=256,
            length=96,
        )
    )
    model = load_model(str(run), "cpu", precision, 16, 8)
    told = GenerateConfig(str(run), "The", 4, 0.0, None, 0, "cpu", Precision(precision))
    text = "".join(generate_text(told))
    return {
        "logprob": found.logprobs["logprob"].to_pylist(),
        "greedy": found.logprobs["greedy"].to_pylist(),
        "written": found.generations["text"].to_pylist(),
        "documents": model.document_loglikelihood(TEXTS).tolist(),
        "text": processes.together(lambda: text),
        "files": sorted(path.name for path in output.iterdir()) if processes.is_first() else [],
    }
