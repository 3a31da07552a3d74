"""A step that drops nothing and takes its time, for clusters_faults.py: work that costs nothing."""

import os
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.steps.contract import Codes, Step

PAUSE = "WINNOW_SLOW_STEP"


@dataclass
class Slow(Step):
    """Sleeps for as many seconds as the environment says, once for each batch."""

    reasons = ()

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        """The batch as it is."""
        time.sleep(float(os.environ.get(PAUSE, 0)))
        return batch, np.zeros(len(batch), np.int8)
