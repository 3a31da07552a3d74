"""What this package's command lines share: typed settings from Hydra, errors without a traceback.

Hydra has refused unknown keys and wrong types before this is called.
"""

import sys
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf


def run(act: Callable[[Any], None], config: DictConfig) -> None:
    """Call ``act`` with the config as an instance of its dataclass.

    What the user can mend (a ValueError or OSError) is one line on standard error and exit code 1.
    """
    try:
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise ValueError(f"{', '.join(missing)} missing: give it as {missing[0]}=VALUE")
        act(OmegaConf.to_object(config))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
