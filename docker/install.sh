#!/bin/sh
# usage: install.sh SOURCE FOLDER    installs multidiff from SOURCE into a new environment, FOLDER
# TORCH_BACKEND and EXTRAS as in the Dockerfile.
set -eu
source=$1 folder=$2
uv venv --quiet --python "${PYTHON_FOR_VENV:-python3}" "$folder"
uv pip install --quiet --python "$folder/bin/python" --compile-bytecode -c "$source/constraints.txt" \
    ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} "$source[${EXTRAS:-serve,tts}]"
# What compiles extensions or tests packages is not needed to run them.
packages=$(echo "$folder"/lib/python3*/site-packages)
rm -rf "$packages/torch/include" "$packages/torch/test" "$packages/gradio/templates/node"
find "$packages/scipy" "$packages/pandas" "$packages/sympy" -type d -name tests -prune \
    -exec rm -rf {} +
