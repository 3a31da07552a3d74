"""What this package's command lines share: typed settings from Hydra, errors without a traceback.

Hydra has refused wrong types and unknown keys before this is called, but for keys added with ``+``.
"""

import sys
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError


def run(act: Callable[[Any], None], config: DictConfig) -> None:
    """Call ``act`` with the config as an instance of its dataclass.

    What the user can mend (a ValueError or OSError) is one line on standard error and exit code 1.
    """
    try:
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise ValueError(f"{', '.join(missing)} missing: give it as {missing[0]}=VALUE")
        schema = OmegaConf.structured(OmegaConf.get_type(config))
        act(OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.to_container(config))))
    except ConfigKeyError as error:
        sys.exit(f"error: {str(error).splitlines()[0]}: see --help")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
