#!/usr/bin/env bash
# Creates the virtual environment named by $1 from requirements.lock. Uses uv where present, plain pip elsewhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
venv=${1:-.venv}

new_enough() { "$1" -c 'import sys; sys.exit(not (sys.version_info >= (3, 12)))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in python3.12 python3.13 python3 python \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3; do
        if new_enough "$candidate"; then echo "$candidate"; return 0; fi
    done
    return 1
}

if ! new_enough "$venv/bin/python"; then
    rm -rf "$venv"
    if python=$(find_python); then
        "$python" -m venv "$venv"
    elif command -v uv >/dev/null 2>&1; then
        uv venv --quiet --python 3.12 "$venv"
    else
        found=$(python3 -V 2>/dev/null || echo "no python3")
        echo "Plumbline needs Python 3.12 or newer; this machine offers ${found}." >&2
        echo "Install it (for example: pyenv install 3.12, or apt-get install python3.12 python3.12-venv) and run make again." >&2
        exit 2
    fi
fi

lock=requirements.lock
if [ "${2:-}" = spark ]; then
    if ! command -v java >/dev/null 2>&1; then
        echo "No Java on this machine: the tests of the Spark engine will be skipped." >&2
        exit 0
    fi
    lock=requirements-spark.lock
    echo "Adding PySpark for the tests of the Spark engine..." >&2
fi

echo "Installing the locked libraries into ${venv} (a few minutes the first time)..." >&2
if command -v uv >/dev/null 2>&1; then
    uv pip install --quiet --python "$venv/bin/python" --require-hashes -r "$lock"
    uv pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation -e .
else
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
fi
