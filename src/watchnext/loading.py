"""Importing what stays until the process ends."""

import atexit
import gc
import sys
from importlib import import_module


def load(name: str) -> None:
    """Imports a module for good: the collector rests meanwhile, and leaves what is there out from then on.

    PyTorch and what comes with it are some 400,000 objects. To look through them for garbage again and again took a
    fifth of the start of every command (docs/results.md).
    """
    if name in sys.modules:
        return
    gc.disable()
    try:
        import_module(name)
    finally:
        gc.freeze()
        gc.enable()
    atexit.register(gc.unfreeze)  # else DuckDB complains of what is left when the interpreter ends
