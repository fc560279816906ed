"""How long PyTorch's threads wait for more work before they let go of the processor: imported before PyTorch is.

Between two matrix products, threads of our own work on the rows of embedding tables. OpenMP's threads by default spin
for milliseconds, and take the processor from them: a training step was a fifth slower (docs/results.md). OpenMP reads
this once, when PyTorch is loaded, so it is set at import; a value that the environment has already stays.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "3000")
