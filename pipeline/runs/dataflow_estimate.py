"""Estimates machine hours and shuffled bytes on Dataflow, from ``conf/pipeline/dataflow.yaml``."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from winnow import defaults
from winnow.arguments import advice

FILE = os.path.join(defaults.CONF, "pipeline", "dataflow.yaml")

_TABLE = "machine_gib_per_vcpu"
_PRICES = ("price_vcpu_hour", "price_gib_hour", "price_disk_gb_hour", "price_shuffle_gb")
_MACHINE = re.compile(r"(?P<family>[a-z]\w*-[a-z]+)-(?P<vcpus>\d+)")
_CUSTOM = re.compile(r"(?:[a-z]\w*-)?custom-(?P<vcpus>\d+)-(?P<mib>\d+)(?:-ext)?")


def assumptions(replaced: Sequence[str] = ()) -> dict[str, Any]:
    """The assumptions of the file, overridden by ``NAME=VALUE``.

    Raises:
        ValueError: one is malformed, has an unknown name, or is not a positive number.
    """
    with open(FILE, encoding="utf-8") as file:
        known: dict[str, Any] = yaml.safe_load(file)
    for text in replaced:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--assume {text!r} is not of the form NAME=VALUE")
        if name not in known or name == _TABLE:
            names = [name for name in known if name != _TABLE]
            raise ValueError(f"--assume knows no {name!r}: {advice(name, names)}")
        try:
            known[name] = float(value)
        except ValueError:
            raise ValueError(f"--assume {name} should be a number, not {value!r}") from None
        if not (known[name] > 0 and math.isfinite(known[name])):
            raise ValueError(f"--assume {name} should be more than 0, not {value}")
    return known


@dataclass(frozen=True)
class Machine:
    """A worker: its cores, memory in GiB, and disk in GB."""

    vcpus: int
    gib: float
    disk_gb: float


def machine(name: str, disk_gb: int | None, assumed: Mapping[str, Any]) -> Machine:
    """The machine of a Compute Engine type, such as ``n2-standard-8`` or ``n2-custom-4-8192``.

    Raises:
        ValueError: its memory is unknown; the message says how to set it.
    """
    disk = disk_gb or assumed["disk_gb"]
    given = assumed["gib_per_vcpu"]
    if found := _CUSTOM.fullmatch(name):
        vcpus = int(found["vcpus"])
        return Machine(vcpus, given * vcpus if given else int(found["mib"]) / 1024, disk)
    found = _MACHINE.fullmatch(name)
    per_vcpu = given or (found and assumed[_TABLE].get(found["family"]))
    if not found or not per_vcpu:
        raise ValueError(
            f"the memory of --machine_type {name} is not in {os.path.basename(FILE)}: add --assume"
            " gib_per_vcpu=N to the dry run (its name must end with the number of cores)"
        )
    return Machine(int(found["vcpus"]), per_vcpu * int(found["vcpus"]), disk)


@dataclass(frozen=True)
class Work:
    """The work: stored bytes, tasks, whether the rule is ``solved`` from all scores or exact
    duplicates are dropped, and the ``bands`` of near-duplicates (0 without that search).
    """

    input_bytes: float
    tasks: int
    solved: bool
    deduplicate: bool
    bands: int

    @property
    def late(self) -> bool:
        """Whether documents are decided in a second pass."""
        return self.solved or self.deduplicate or self.bands > 0


@dataclass(frozen=True)
class Estimate:
    """The resources of a run; GB are 10⁹ bytes.

    ``gib_hours`` and ``disk_gb_hours`` need a machine type, and ``hours`` (from the first machine's
    start to the end) a number of workers.
    """

    text_gb: float
    documents: float
    vcpu_hours: float
    shuffle_gb: float
    gib_hours: float | None = None
    disk_gb_hours: float | None = None
    workers: int | None = None
    hours: float | None = None


def estimate(
    work: Work, assumed: Mapping[str, Any], worker: Machine | None, workers: int | None
) -> Estimate:
    """The resources for ``work`` on up to ``workers`` machines, all busy to the end.

    Machines without a task do not start; the others are paid for while they start.
    """
    text = work.input_bytes * assumed["text_per_input_byte"]
    documents = text / assumed["text_bytes_per_document"]
    core_hours = text / assumed["text_bytes_per_core_second"] / 3600 * assumed["overhead"]
    core_hours *= assumed["late"] if work.late else 1
    a_document = assumed["shuffle_bytes_per_document"]
    a_document += assumed["shuffle_bytes_per_deduplicated"] if work.deduplicate else 0
    a_document += work.bands * assumed["shuffle_bytes_per_band"]
    a_task = assumed["shuffle_bytes_per_task"]
    a_task += assumed["shuffle_bytes_per_solved_task"] if work.solved else 0
    shuffled = work.tasks * a_task + documents * a_document
    found = Estimate(text / 1e9, documents, core_hours, shuffled / 1e9)
    if worker is None:
        return found
    started = max(1, min(workers or 1, math.ceil(work.tasks / worker.vcpus)))
    hours = core_hours / worker.vcpus + started * assumed["start_minutes"] / 60
    found = replace(
        found, vcpu_hours=hours * worker.vcpus, gib_hours=hours * worker.gib,
        disk_gb_hours=hours * worker.disk_gb,
    )  # fmt: skip
    return replace(found, workers=started, hours=hours / started) if workers else found


def cost(found: Estimate, assumed: Mapping[str, Any]) -> float | None:
    """The sum over all four resources, or None if a price or a quantity is missing."""
    used = (found.vcpu_hours, found.gib_hours, found.disk_gb_hours, found.shuffle_gb)
    prices = [assumed[name] for name in _PRICES]
    pairs = [(u, p) for u, p in zip(used, prices, strict=True) if u is not None and p is not None]
    return sum(u * p for u, p in pairs) if len(pairs) == len(_PRICES) else None
