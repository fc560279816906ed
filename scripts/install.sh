#!/bin/sh
# Creates the environment $VENV with the pinned versions of constraints.txt and watchnext itself in it.
#
# Where there is no NVIDIA GPU, PyTorch's own index of CPU builds is asked first: the build on PyPI brings several
# gigabytes of CUDA. Where pip has been told of other places to look (PIP_FIND_LINKS or an extra index), those decide.
set -eu
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "watchnext needs Python 3.11 or later; $PYTHON is $("$PYTHON" --version). Say: make PYTHON=python3.11 ..." >&2
    exit 1
}
"$PYTHON" -m venv "$VENV"

if command -v nvidia-smi >/dev/null 2>&1 || [ -n "${PIP_FIND_LINKS:-}${PIP_EXTRA_INDEX_URL:-}${PIP_INDEX_URL:-}" ]; then
    torch_index=""
else
    torch_index="--extra-index-url https://download.pytorch.org/whl/cpu"
fi
install() { # Python compiles what it imports later: all that is installed would take it a minute more
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt "$@"
}
# shellcheck disable=SC2086  # the option and its value are two words
install $torch_index -e '.[dev,redis,tfrecord]'
# ScaNN has no wheel for every platform and Python: its tests are skipped where it is missing.
install --only-binary scann scann ||
    echo "ScaNN could not be installed: everything but [index] engine = 'scann' works without it." >&2
