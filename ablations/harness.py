r"""lm-evaluation-harness with our checkpoints: its command, with a model type ``winnow``.

python ablations/harness.py run --model winnow --model_args run=run/ --device cpu --tasks piqa

The rest is lm-evaluation-harness's (``pip install 'winnow-lm[harness]'``): tasks, data from the
hub, rules, and the default device, cuda:0. The code of ``ablations/evaluate.py`` answers requests.
"""

from typing import Any

import lm_eval.__main__
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from ablations.evaluation.harness_requests import Request, answer
from ablations.evaluation.token_model import TokenModel, load_model


@register_model("winnow")
class HarnessModel(LM):
    """A trained model behind the interface of the harness.

    Give ``run``, a folder of ``model/train.py`` or a checkpoint, or a ``model`` in memory.
    ``conf/evaluate.yaml`` explains other settings; those of the harness are unused.
    """

    def __init__(
        self,
        run: str | None = None,
        model: TokenModel | None = None,
        device: str = "auto",
        precision: str = "auto",
        length: int | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        if (run is None) == (model is None):
            raise ValueError("give --model_args run=FOLDER, a folder of model/train.py")
        self.model = model or load_model(str(run), device or "auto", precision, length=length)

    def _answers(self, requests: list[Instance]) -> list[Any]:
        """The answers to requests of any kind; a ValueError if one asks to sample."""
        plain = [Request(request.request_type, request.args) for request in requests]
        return answer(self.model, plain)[0]

    loglikelihood = loglikelihood_rolling = generate_until = _answers


if __name__ == "__main__":
    lm_eval.__main__.cli_evaluate()
