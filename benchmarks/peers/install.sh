#!/bin/sh
# install.sh FOLDER training|index|ranking: makes an environment for each peer of benchmarks/step.py, or one for those of
# benchmarks/index.py or benchmarks/ranking_quality.py, in the folder; none of them shares ours.
# torch comes first and pinned, so that nothing pulls another build of it.
set -eu
PYTHON="${PYTHON:-python3}"
mkdir -p "$1"
cd "$1"
if [ "$2" = index ]; then
    [ -d index ] || "$PYTHON" -m venv index
    index/bin/pip install -q numpy==2.4.6 faiss-cpu==1.15.1 usearch==2.26.6 scalable-vs==0.5.0
    index/bin/pip install -q hnswlib==0.8.0  # built here: needs a C++ compiler
    index/bin/pip install -q --no-deps scann==1.4.2  # TensorFlow is for its TensorFlow ops alone
    index/bin/pip install -q protobuf==7.36.2
    exit
fi
if [ "$2" = ranking ]; then
    [ -d ranking ] || "$PYTHON" -m venv ranking
    ranking/bin/pip install -q numpy==2.4.6 scipy==1.17.1 lightgbm==4.7.0
    exit
fi
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
