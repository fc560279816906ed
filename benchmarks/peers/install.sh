#!/bin/sh
# Makes an environment for each peer of benchmarks/step.py in the folder given: none of them shares ours.
# torch comes first and pinned, so that nothing pulls another build of it.
set -eu
PYTHON="${PYTHON:-python3}"
mkdir -p "$1"
cd "$1"
[ -d tf ] || "$PYTHON" -m venv tf
tf/bin/pip install -q tensorflow==2.21.0 tf-keras==2.21.0 tensorflow-recommenders==0.7.7
tf/bin/pip install -q --no-deps keras-rs==0.4.0
[ -d rechub ] || "$PYTHON" -m venv rechub
rechub/bin/pip install -q torch==2.13.0
rechub/bin/pip install -q --no-deps torch-rechub==0.9.0
rechub/bin/pip install -q torch==2.13.0 pandas scikit-learn tqdm numpy annoy
[ -d librec ] || "$PYTHON" -m venv librec
librec/bin/pip install -q torch==2.13.0
librec/bin/pip install -q --no-deps LibRecommender==1.5.2
librec/bin/pip install -q torch==2.13.0 tensorflow==2.21.0 tf-keras==2.21.0 'pandas<3' scikit-learn gensim tqdm
