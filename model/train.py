"""An arm of a training corpus in; a trained model with its learning curve out.

python model/train.py model=glam_3m_16e data.corpus=corpus/ data.arm=filtered seed=1 \
        train.tokens=1_000_000 output=run/

Every default is in ``conf/train.yaml``. After an interruption the same command resumes from the
last checkpoint; on a CPU the weights are then the same, bit for bit, as without one. On several
devices (:mod:`model.training.distributed.parallel`), whose number may change between resumes:

torchrun --nproc-per-node 8 model/train.py model=glam_1b7_64e … train.expert_parallel=8

::

    OUTPUT/
      config.yaml          what was asked for
      tokenizer.json       the corpus's, so that the folder is enough to generate text
      metrics.jsonl        a line for each logged step (:mod:`model.training.metrics_log`)
      tensorboard/         the same; so is wandb/, where log.wandb asks for it
      checkpoints/step_…/  see :mod:`model.training.checkpoints.checkpoint`
      heldout.arrow        bits of every held-out document under the final model
      run.log              what the command said, with times
      outcome.json         :class:`model.training.outcome.Outcome`, written last
"""

from model.training import allocator
from winnow.commands import overrides

if __name__ == "__main__":
    allocator.tune()
    overrides.run("model.training.training_run", "train")
