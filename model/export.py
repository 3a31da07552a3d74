"""Exports a trained model as safetensors with a config and a tokenizer, for transformers.

python model/export.py checkpoint=run/ output=exported/

::

    OUTPUT/
      model.safetensors       float32 weights, named as in model.glam.GLaM after "glam."
      config.json             the architecture, under "glam" as in conf/model/
      tokenizer.json          puts the boundary before a text; with tokenizer_config.json
      modeling_glam.py        transformers' AutoModelForCausalLM, where winnow-lm is installed

``AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`` then gives the same logits,
and ``generate`` the same text as ``model/generate.py``. Batches may be padded on either side. The
tokenizer needs no custom code. :func:`model.training.checkpoints.trained.load` reads the folder.
"""

from winnow.commands import overrides

if __name__ == "__main__":
    overrides.run("model.exporting", "export")
