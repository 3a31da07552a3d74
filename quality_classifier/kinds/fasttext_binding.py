"""The module ``fasttext``, once it is known to be the one of ``fasttext-numpy2``.

Several distributions install a module of that name; ``fasttext-predict``, for one, replaces its
files by some that can't train.
"""

import functools
import importlib.metadata
from types import ModuleType


@functools.cache
def fasttext_module() -> ModuleType:
    """The module, imported when it is first needed.

    Raises:
        ValueError: it is missing or another package's; the message says how to mend it.
    """
    mend = "pip install --force-reinstall --no-deps fasttext-numpy2"
    try:
        import fasttext
    except ImportError as error:
        raise ValueError(f"the module fasttext can't be imported ({error}): {mend}") from error
    if not hasattr(fasttext, "train_supervised") or not hasattr(fasttext, "FastText"):
        owners = importlib.metadata.packages_distributions().get("fasttext", [])
        others = sorted(set(owners) - {"fasttext-numpy2"})
        remove = f"pip uninstall {' '.join(others)}, then " if others else ""
        raise ValueError(
            f"the module fasttext ({fasttext.__file__}) is not fasttext-numpy2's: {remove}{mend}"
        )
    return fasttext
