"""Trains a model on an arm of a training corpus.

python model/train.py model=glam_3m_16e data.corpus=corpus/ data.arm=filtered seed=1 \
        train.tokens=1_000_000 output=run/

All defaults are in ``conf/train.yaml``. After an interruption the same command resumes from the
last checkpoint; on a CPU the weights are bit for bit those of an uninterrupted run. On several
devices (:mod:`model.training.distributed.parallel`), whose number may change between resumes:

torchrun --nproc-per-node 8 model/train.py model=glam_1b7_64e … train.expert_parallel=8

::

    OUTPUT/
      config.yaml          the settings
      tokenizer.json       a copy of the corpus's, for generation
      metrics.jsonl        a line per logged step (:mod:`model.training.metrics_log`)
      tensorboard/         the same; also in wandb/ if log.wandb is set
      checkpoints/step_…/  see :mod:`model.training.checkpoints.checkpoint`
      heldout.arrow        bits of every held-out document under the final model
      run.log              the command's messages, with times
      outcome.json         :class:`model.training.outcome.Outcome`, written last
"""

from model.training import allocator
from winnow.commands import overrides

if __name__ == "__main__":
    allocator.tune()
    overrides.run("model.training.training_run", "train")
