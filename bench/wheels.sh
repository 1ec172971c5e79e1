#!/bin/sh
# bench/wheels.sh: the packages of `make bench-gpu` that the Python with torch on a GPU machine may lack, as wheels
# for Python 3.12 on Linux, into bench/wheels. The versions are those of constraints.txt.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
wheels=bench/wheels
mkdir -p "$wheels"
constrained() { grep -iE "^$1==" constraints.txt | head -n 1 | cut -d ';' -f 1 | tr -d ' '; }
for package in ale-py annotated-types antlr4-python3-runtime captum cloudpickle farama-notifications gymnasium \
    hydra-core hypothesis omegaconf pydantic pydantic-core pylatexenc sortedcontainers stable-baselines3 \
    typing-extensions typing-inspection; do
    requirement=$(constrained "$package")
    # The GPU machine has torch and numpy of its own: nothing that these packages need is fetched. The second form
    # is for packages of pure Python that are published as source alone.
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --dest "$wheels" "$requirement" 2> "$wheels/download.log" ||
        "$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" "$requirement"
done
ls "$wheels"
