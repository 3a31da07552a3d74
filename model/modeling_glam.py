"""A GLaM for transformers, which takes this file from an exported folder.

It only wraps the model of the package winnow-lm, which must be installed. No cache: each token is
generated from the whole text, at a price in time alone; ``model/generate.py`` has one.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

try:
    from model.config import GLaMConfig
    from model.glam import GLaM
except ImportError as error:
    raise ImportError("this model needs the package winnow-lm: install it first") from error


class GLaMHubConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """``glam`` holds the fields of :class:`model.config.GLaMConfig`."""

    model_type = "winnow_glam"

    def __init__(self, glam: dict[str, Any] | None = None, **rest: Any) -> None:
        self.glam = glam or {}
        self.num_hidden_layers = self.glam.get("layers", 0)
        super().__init__(**{"use_cache": False, **rest})


class GLaMForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """Logits, and the mean cross-entropy where labels are given."""

    config_class = GLaMHubConfig

    def __init__(self, config: GLaMHubConfig) -> None:
        super().__init__(config)
        self.glam = GLaM(GLaMConfig(**config.glam))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> CausalLMOutput:
        """All int64 [B, S]. Labels are the tokens themselves, -100 where they don't count."""
        # Padding is a document of its own, which no other sees.
        segments = None if attention_mask is None else attention_mask.to(torch.int32)
        logits = self.glam(input_ids, segments)
        loss = None
        if labels is not None:
            targets = labels[:, 1:].flatten()
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets)
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(self, input_ids: Tensor, *_: Any, **options: Any) -> Any:
        """The whole text each time."""
        return {"input_ids": input_ids, "attention_mask": options.get("attention_mask")}
