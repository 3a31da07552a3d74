"""The command ``winnow``: runs a module as ``python -m`` does, without importing the others."""

import os
import runpy
import sys

from winnow.arguments import nearest

PROGRAM = "WINNOW_PROGRAM"
"""The environment variable with the name under which a command was started."""

EXIT_CODES = "0 done, 1 failed, 2 wrong usage, 130 interrupted"

# (command, module, help), by stage.
COMMANDS = {
    "filter text": [
        ("classifier train", "quality_classifier.train", "a quality classifier, with its card"),
        ("run", "pipeline.run", "score, filter and measure raw text"),
        ("report", "pipeline.report", "the table and the page of a run"),
        ("decide", "pipeline.decide", "another keep rule, without model or text"),
        ("steps fit", "pipeline.fit_steps", "fit settings of steps to a language, from good text"),
        ("calibrate", "pipeline.calibrate", "the combined score of several classifiers"),
        ("audit", "quality_classifier.audit", "keep rates by source, language, length, …"),
        ("push", "pipeline.push", "a finished run to the Hugging Face hub"),
        ("warm-up", "winnow.warm_up", "compile all kernels now, not on first use"),
    ],
    "train on it": [
        ("prepare", "model.prepare", "tokenize scored shards into a corpus"),
        ("train", "model.train", "a model on one arm of a corpus"),
        ("generate", "model.generate", "continue a prompt"),
        ("export", "model.export", "files for transformers"),
        ("sizes", "model.sizes", "parameters, FLOPs, memory and time of models"),
        ("plan-sharding", "model.plan_sharding", "trace a sharded model without the hardware"),
    ],
    "compare": [
        ("study plan", "ablations.plan", "what a study costs and what it could detect"),
        ("study run", "ablations.run", "train, evaluate and compare every arm and seed"),
        ("study report", "ablations.report", "the page of a study"),
        ("compare", "ablations.compare", "the verdict and its tables"),
        ("evaluate", "ablations.evaluate", "a model on evaluation tasks"),
        ("contamination", "ablations.contamination", "task items that occur in training text"),
        ("near-duplicates", "ablations.near_duplicates", "held-out text that training text has"),
    ],
}


def main() -> None:
    """Run the named command; exit with code 2 if it is unknown."""
    modules = _modules()
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"winnow {version('winnow-lm')}")
        return
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in modules:
            sys.argv = [f"winnow {name}", *arguments[words:]]
            os.environ[PROGRAM] = sys.argv[0]
            try:
                runpy.run_module(modules[name], run_name="__main__", alter_sys=True)
            except KeyboardInterrupt:  # before the command started
                print(f"{sys.argv[0]}: interrupted", file=sys.stderr)
                sys.exit(130)
            return
    print(unknown(arguments, list(modules)), file=sys.stderr)
    sys.exit(2)


def overview() -> str:
    lines = ["usage: winnow COMMAND ...        winnow COMMAND --help explains one", ""]
    for stage, commands in COMMANDS.items():
        lines.append(f"{stage}:")
        lines += [f"  {name:<18}{about}" for name, _, about in commands]
    stages = "From raw text to a verdict: classifier train, run, prepare, study plan, study run."
    return "\n".join([*lines, "", stages, f"Exit codes: {EXIT_CODES}."])


def unknown(arguments: list[str], names: list[str]) -> str:
    """The error for an unknown command, which suggests its group's commands or the nearest one."""
    group = [name for name in names if name.startswith(f"{arguments[0]} ")]
    if group:
        parts = ", ".join(name.split()[1] for name in group)
        return f"winnow: error: {arguments[0]} needs one of: {parts}"
    words = 2 if arguments[1:] and arguments[1].isalpha() else 1
    requested = " ".join(arguments[:words])
    near = nearest(requested, names) or nearest(arguments[0], names)
    advice = f"did you mean winnow {near}?" if near else "see winnow --help"
    return f"winnow: error: there is no command {arguments[0]!r}: {advice}"


def program() -> str:
    """The name under which the running command was started: ``winnow NAME``, or its script."""
    return os.environ.get(PROGRAM) or "/".join(sys.argv[0].split(os.sep)[-2:])


def start() -> str:
    """The running command as a user starts it, without arguments."""
    return os.environ.get(PROGRAM) or f"python {program()}"


def command(name: str, *arguments: str) -> str:
    """The command line of one of our commands, in the form that started this one."""
    start = f"winnow {name}"
    if PROGRAM not in os.environ:
        start = f"python {_modules()[name].replace('.', '/')}.py"
    return " ".join([start, *map(_quoted, arguments)])


def _modules() -> dict[str, str]:
    return {name: module for stage in COMMANDS.values() for name, module, _ in stage}


def _quoted(argument: str) -> str:
    import shlex

    name, equals, value = argument.partition("=")
    return f"{name}={shlex.quote(value)}" if equals else shlex.quote(argument)
