"""What every benchmark says of the machine it ran on."""

import json
import os
import platform
import resource
from typing import Any

import torch


def machine() -> str:
    """Gives processor, cores and torch version."""
    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads"


def peak_memory_bytes() -> int:
    """Gives the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def print_result(**figures: Any) -> None:
    """Prints one JSON line: the machine and the figures."""
    print(json.dumps({"machine": machine(), "peak_memory_bytes": peak_memory_bytes(), **figures}))
