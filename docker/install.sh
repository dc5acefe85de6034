#!/bin/sh
# usage: install.sh SOURCE FOLDER    installs multidiff from SOURCE into a new environment, FOLDER
# TORCH_BACKEND, EXTRAS and TRAINING as in the Dockerfile.
set -eu
source=$1 folder=$2
uv venv --quiet --python "${PYTHON_FOR_VENV:-python3}" "$folder"
uv pip install --quiet --python "$folder/bin/python" -c "$source/constraints.txt" \
    ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} "$source[${EXTRAS:-serve,tts}]"
# Training, data sets and metrics are not for this image: 0.7 GB less.
[ -n "${TRAINING:-}" ] || uv pip uninstall --quiet --python "$folder/bin/python" accelerate datasets \
    grpcio joblib librosa llvmlite lxml numba pyarrow pystoi sacrebleu scikit-learn scipy tensorboard \
    tensorboard-data-server
packages=$(echo "$folder"/lib/python3*/site-packages)
rm -rf "$packages/torch/include" "$packages/torch/test" "$packages/gradio/templates/node" \
    "$packages/gradio/media_assets"
for package in pandas scipy sympy; do
    [ ! -d "$packages/$package" ] ||
        find "$packages/$package" -type d -name tests -prune -exec rm -rf {} +
done
# Bytecode of what a service imports, so that it starts fast where nobody may write; that of all
# that is installed takes 0.3 GB.
case ${EXTRAS:-serve,tts} in *serve*) ;; *) exit 0 ;; esac
case ${EXTRAS:-serve,tts} in *tts*) voice=kathleen ;; *) voice= ;; esac
"$folder/bin/python" - digits masked edits $voice <<'PYTHON'
import sys

from multidiff.serve import create_app
from multidiff.serve.page import mount_page
from multidiff.serve.server import loaded

mount_page(create_app(loaded({name: name for name in sys.argv[1:]}, "cpu"))).state.service.close()
PYTHON
