#!/bin/sh
# Makes the environment in .venv from the locks. What the machine lacks is said before anything is downloaded.
#   TORCH=cpu     the CPU build of torch (200 MB) in place of the CUDA one (5 GB); remembered for the next time
#   PYTHON=...    the interpreter to build on; otherwise the first that is 3.11 or newer
set -eu
cd "$(dirname "$0")/.."

fail() {
    printf '\nsetup: %s\n' "$1" >&2
    exit 1
}

TORCH=${TORCH:-$(cat .venv/.torch 2>/dev/null || echo cuda)}
case $TORCH in
cuda | cpu) ;;
*) fail "TORCH=$TORCH: allowed are cuda and cpu" ;;
esac

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ -x .venv/bin/python ]; then
    PYTHON=.venv/bin/python
    recent "$PYTHON" || fail ".venv holds a Python that does not run or is older than 3.11: remove it (rm -r .venv)"
else
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if recent "$candidate"; then
            found=$candidate
            break
        fi
    done
    [ -n "${found:-}" ] || fail "no Python 3.11 or newer (looked for: ${PYTHON:-python3, python3.13, python3.12, \
python3.11}). Install one, or name it: make setup PYTHON=/path/to/python3"
    PYTHON=$found
fi
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "Python $version cannot make environments. Debian, Ubuntu: apt install python$version-venv"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# hnswlib comes as source: it wants a C++ compiler and Python's headers. Without them everything else still works.
compiler=${CXX:-c++}
include=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
printf '#include <vector>\nint main() { return std::vector<int>(1).at(0); }\n' >"$work/compiler.cpp"
printf '#include <Python.h>\nint main() { return 0; }\n' >"$work/headers.cpp"
no_hnsw=
if ! $compiler -std=c++11 "$work/compiler.cpp" -o "$work/compiler" 2>/dev/null || ! "$work/compiler"; then
    no_hnsw="no working C++ compiler ($compiler). Debian, Ubuntu: apt install g++. Fedora: dnf install gcc-c++. \
macOS: xcode-select --install. Another one: make -B setup CXX=/path/to/c++"
elif ! $compiler -std=c++11 -I"$include" -c "$work/headers.cpp" -o "$work/headers.o" 2>/dev/null; then
    no_hnsw="Python $version has no headers in $include. Debian, Ubuntu: apt install python$version-dev. \
Fedora: dnf install python3-devel"
fi

if [ ! -x .venv/bin/python ]; then
    "$PYTHON" -m venv .venv
fi
python=.venv/bin/python
echo "$TORCH" >.venv/.torch

"$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null
"$python" -m pip install --quiet --require-hashes --only-binary :all: -r requirements-uv.lock

# uv does not read pip's configuration: who uses a mirror says so once.
mirror=${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}
if [ -n "$mirror" ]; then
    export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$mirror}"
fi
# Compiled now, once: a worker's imports take a second more where Python may not, or does not, keep what it compiles.
install() {
    .venv/bin/uv pip install --python "$python" --build-constraints requirements-build.lock --compile-bytecode "$@"
}

echo hnswlib >"$work/later"
case $TORCH in
cuda)
    install --require-hashes --excludes "$work/later" -r requirements.lock
    ;;
cpu)
    # The lock holds the hashes of the CUDA build. The CPU build is another file of the same version from torch's own
    # index, which uv knows; so torch alone is installed without a hash, and what serves CUDA not at all.
    gpu='^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)=='
    grep -oE "$gpu" requirements.lock | tr -d '=' >>"$work/later"
    install --require-hashes --excludes "$work/later" -r requirements.lock
    install --no-deps --torch-backend=cpu "$(grep -oE '^torch==[^ ]+' requirements.lock)"
    ;;
esac
if [ -z "$no_hnsw" ]; then
    sed -n '/^hnswlib==/,/[^\\]$/p' requirements.lock >"$work/hnswlib"
    install --quiet --require-hashes --no-deps -r "$work/hnswlib" || no_hnsw="it does not build here: see above"
fi
if [ -n "$no_hnsw" ] && ! "$python" -c "import hnswlib" 2>/dev/null; then
    cat >&2 <<EOF

setup: hnswlib is left out: $no_hnsw
Warm songs are searched exactly instead: never worse, but slower with every song (3 to 20 ms a search among 100,000).
To have it later: make -B setup

EOF
fi
install --quiet --no-deps -e .
"$python" -m compileall -q encoder significance streams targeting
touch .venv/.ready
