"""The jobs of a sweep, as Hydra's own command line would make them."""

from hydra import compose
from omegaconf import OmegaConf

from ablations.study.design.jobs import expand


def composed(overrides):
    """The config of a sweep, without the swept values."""
    fixed = [o for o in overrides if "," not in o or o.startswith("hydra.")]
    config = compose("ablation", overrides=fixed, return_hydra_config=True)
    OmegaConf.set_readonly(config.hydra, False)
    config.hydra.overrides.task = [o for o in overrides if not o.startswith("hydra.")]
    return config


def jobs_of(*overrides):
    return expand(composed(overrides), "ablation")
