"""Exit on errors in entry points of a study."""

import contextlib
import sys
import traceback
from collections.abc import Iterator

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from winnow.commands import exits
from winnow.commands.hydra_errors import one_line


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Exit on an error; from a callback, Hydra would only warn and continue."""
    try:
        yield
    except HydraException as error:
        exits.fail(exits.UsageError(one_line(error)))
    except (ValueError, OSError, OmegaConfBaseException) as error:
        exits.fail(error)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
