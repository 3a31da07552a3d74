"""A GLaM for transformers, which loads this file from an exported folder.

It wraps the model of the package winnow-lm, which must be installed.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache as PastKeyValues
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

try:
    from model.glam.attention import Cache
    from model.glam.config import GLaMConfig
    from model.glam.transformer import GLaM
except ImportError as error:
    raise ImportError("this model needs the package winnow-lm: install it first") from error


class GLaMHubConfig(PretrainedConfig):
    """``glam`` holds the fields of :class:`model.glam.config.GLaMConfig`."""

    model_type = "winnow_glam"

    def __init__(self, glam: dict[str, Any] | None = None, **rest: Any) -> None:
        self.glam = glam or {}
        self.num_hidden_layers = self.glam.get("layers", 0)
        self.hidden_size = self.glam.get("width", 0)
        super().__init__(**rest)


class CacheOfTransformers(Cache):
    """The model's cache, stored where ``generate`` can reorder and crop it.

    The attention mask of all positions serves as segments, so padding is a separate document.
    """

    def __init__(self, past: PastKeyValues | None, mask_BK: Tensor) -> None:
        super().__init__([], [], mask_BK.to(torch.int32))
        self.past = past

    def extend(self, layer: int, k_BNSD: Tensor, v_BNSD: Tensor) -> tuple[Tensor, Tensor]:
        """As :class:`model.glam.attention.Cache`; without a past, just the new keys and values."""
        return (k_BNSD, v_BNSD) if self.past is None else self.past.update(k_BNSD, v_BNSD, layer)

    def extend_segments(self, segments_BS: Tensor) -> Tensor:
        """All segments, which already include the new positions."""
        assert self.segments_BK is not None
        return self.segments_BK


class GLaMForCausalLM(PreTrainedModel, GenerationMixin):
    """Logits, and the mean cross-entropy if labels are given."""

    config_class = GLaMHubConfig
    accepts_loss_kwargs = False  # the loss is a mean over the batch at hand

    def __init__(self, config: GLaMHubConfig) -> None:
        super().__init__(config)
        self.glam = GLaM(GLaMConfig(**config.glam))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: PastKeyValues | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of S tokens (int64 [B, S]) that follow K - S cached positions.

        ``attention_mask`` is [B, K], 0 at padding, on either side; None means no padding.
        ``labels`` (int64 [B, S]) are the tokens themselves, or -100 to ignore a position.
        ``use_cache`` starts a cache if none is given. Raises ValueError for a mask of wrong shape.
        """
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        B, S = input_ids.shape
        K = S + (0 if past_key_values is None else int(past_key_values.get_seq_length()))
        if attention_mask is None:
            attention_mask = input_ids.new_ones(B, K)
        if attention_mask.shape != (B, K):
            raise ValueError(
                f"attention_mask is {tuple(attention_mask.shape)} but must be {(B, K)}, for all"
                " positions so far; of transformers' caches only dynamic ones work"
            )
        cache = CacheOfTransformers(past_key_values, attention_mask)
        logits = self.glam(input_ids, attention_mask[:, K - S :].to(torch.int32), cache)
        loss = None
        if labels is not None:
            targets = labels[:, 1:].flatten()
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)

    def get_input_embeddings(self) -> nn.Embedding:
        """The tied embedding as a table."""
        V, M = self.glam.embedding.weight.shape
        table = nn.Embedding(V, M, device="meta")
        table.weight = self.glam.embedding.weight
        return table

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding; raise ValueError if its shape differs."""
        shape, weight = tuple(self.glam.embedding.weight.shape), value.weight
        if not isinstance(weight, nn.Parameter) or weight.shape != shape:
            raise ValueError(f"the embedding must be a parameter of shape {shape}")
        self.glam.embedding.weight = weight

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, *_: Any, **__: Any
    ) -> nn.Embedding:
        """Return the embedding, whose size is fixed; raise ValueError for any other size."""
        table = self.get_input_embeddings()
        if new_num_tokens not in (None, table.num_embeddings):
            raise ValueError(f"the vocabulary has {table.num_embeddings} tokens: its size is fixed")
        return table

    def get_output_embeddings(self) -> nn.Linear:
        """The tied embedding as a layer: logits are hidden_size ** -0.5 times its output."""
        V, M = self.glam.embedding.weight.shape
        layer = nn.Linear(M, V, bias=False, device="meta")
        layer.weight = self.glam.embedding.weight
        return layer
