"""A step that only sleeps, so that clusters_faults.py has runs that last and cost nothing."""

import os
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.steps.contract import Codes, Step

PAUSE = "WINNOW_SLOW_STEP"


@dataclass
class Slow(Step):
    """Sleeps once per batch, for the seconds in the environment variable ``PAUSE``."""

    reasons = ()

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        """The batch as it is."""
        time.sleep(float(os.environ.get(PAUSE, 0)))
        return batch, np.zeros(len(batch), np.int8)
