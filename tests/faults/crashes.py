"""A run that is killed right before a chosen one of its changes to the output folder.

Random moments seldom meet the few operations at the end of a run, so these are counted (an audit
hook of Python is told of every file that is opened to write, renamed or removed), and each kind of
them is a moment to die.
"""

import random
import re
from functools import cache
from pathlib import Path

from faults.scene import MODES, Run, Scene
from faults.trials import Trial, resumed

_HOOK = """
import os, signal, sys
todo, log = {before}, os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

def hook(event, args):
    global todo
    if event == "open":
        path = str(args[0]) if args[2] & (os.O_WRONLY | os.O_RDWR) else ""
    elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
        path = str(args[1] if event == "os.rename" else args[0])
        if not path.startswith("/"):
            path = {output!r} + "/(within a folder)/" + path
    else:
        return
    if path.startswith({output!r}) and "/progress/" not in path:  # which goes by the clock
        os.write(log, (event + " " + path[len({output!r}):] + "\\n").encode())
        if todo == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        todo -= 1

sys.addaudithook(hook)
"""


def crash(scene: Scene, output: Path, seed: int) -> Trial:
    """Kill -9 right before the first and the last change of each kind, then before random ones."""
    mode = list(MODES)[seed % 2]
    changes = _changes(scene, mode)
    kinds: dict[str, list[int]] = {}
    for at, kind in enumerate(changes):
        kinds.setdefault(kind, []).append(at)
    moments = sorted({at for found in kinds.values() for at in (found[0], found[-1])})
    turn = seed // 2
    before = moments[turn] if turn < len(moments) else random.Random(seed).randrange(len(changes))
    run = _run(scene, mode, output, before)
    if run.finish() != -9:
        return Trial(changes[before], None, False, [f"it was not killed: {run.said()[-500:]}"])
    recovered, wrong = resumed(scene, mode, output)
    return Trial(changes[before], None, recovered, wrong)


@cache
def _changes(scene: Scene, mode: str) -> list[str]:
    """The kind of every change that an undisturbed run makes, in order."""
    output = scene.folder / "counted" / mode.replace(" ", "_")
    run = _run(scene, mode, output, -1)
    assert run.finish() == 0, run.said()
    lines = _log(output).read_text().splitlines()
    return [re.sub(r"\.tmp-\w{8}-", "temporary ", re.sub(r"\d{5}", "N", line)) for line in lines]


def _run(scene: Scene, mode: str, output: Path, before: int) -> Run:
    output.parent.mkdir(parents=True, exist_ok=True)
    hook = _HOOK.format(before=before, log=str(_log(output)), output=str(output))
    one = "--direct_num_workers=1"  # so that the order of changes is always the same
    return Run(scene, mode, output, one, prelude=hook, python=scene.python)


def _log(output: Path) -> Path:
    return output.with_name(f"{output.name}.changes")
