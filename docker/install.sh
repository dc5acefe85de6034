#!/bin/sh
# usage: install.sh SOURCE FOLDER    installs multidiff from SOURCE into a new environment, FOLDER
# TORCH_BACKEND, EXTRAS and TRAINING as in the Dockerfile.
set -eu
source=$1 folder=$2
uv venv --quiet --python "${PYTHON_FOR_VENV:-python3}" "$folder"
uv pip install --quiet --python "$folder/bin/python" --compile-bytecode -c "$source/constraints.txt" \
    ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} "$source[${EXTRAS:-serve,tts}]"
# Training, data sets and metrics are not for this image: half a gigabyte less.
[ -n "${TRAINING:-}" ] || uv pip uninstall --quiet --python "$folder/bin/python" accelerate datasets \
    grpcio librosa llvmlite numba pyarrow scikit-learn tensorboard \
    tensorboard-data-server
packages=$(echo "$folder"/lib/python3*/site-packages)
rm -rf "$packages/torch/include" "$packages/torch/test" "$packages/gradio/templates/node"
find "$packages/scipy" "$packages/pandas" "$packages/sympy" -type d -name tests -prune \
    -exec rm -rf {} +
