#!/usr/bin/env bash
# The whole check on a CUDA machine, in under nine minutes: build, GPU tests, sanitizers, microbenchmarks.
#
#     bench/gpu.sh            results in bench/results/gpu
#     OUT=/some/folder bench/gpu.sh
#
# Needs torch with CUDA, nvcc, setuptools, ninja and pybind11, and no network. Every stage runs under a time
# limit and leaves its log; a stage that fails does not keep the next from running, and the exit status is 0
# only if all passed.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-bench/results/gpu}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
SITE=$(mktemp -d)
trap 'rm -rf "$SITE"' EXIT
export PYTHONPATH="$SITE"
export PIP_DISABLE_PIP_VERSION_CHECK=1

status=0
stages=()
stage() {
  local name=$1 limit=$2
  shift 2
  local began=$SECONDS code=0
  echo "== $name"
  timeout "$limit" "$@" >"$OUT/$name.log" 2>&1 || code=$?
  tail -n 3 "$OUT/$name.log"
  stages+=("{\"stage\": \"$name\", \"exit\": $code, \"seconds\": $((SECONDS - began))}")
  ((code == 0)) || status=1
}
skip() {
  echo "== $1: skipped: $2"
  stages+=("{\"stage\": \"$1\", \"skipped\": \"$2\"}")
}

LIF_CUDA_BUILD=cuda stage build 150 "$PYTHON" -m pip install --no-build-isolation --no-deps --target "$SITE" .
stage info 60 "$PYTHON" -P -m lif_cuda info
stage tests 150 "$PYTHON" -P -m pytest -q -m gpu -p no:cacheprovider tests
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck; do
    stage "$tool" 40 compute-sanitizer --tool "$tool" --error-exitcode 9 \
      "$PYTHON" -P -m pytest -q -m gpu -k "sanitizer" -p no:cacheprovider tests
  done
else
  skip sanitizers "no compute-sanitizer on PATH"
fi
stage kernels 150 "$PYTHON" bench/kernels.py --device cuda --seconds 2 --no-compile --json "$OUT/kernels.json"

printf '[%s]\n' "$(IFS=,; echo "${stages[*]}")" >"$OUT/stages.json"
cat "$OUT/stages.json"
exit $status
