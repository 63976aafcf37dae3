#!/usr/bin/env bash
# The whole check on a CUDA machine, in eight minutes: build, tests, sanitizers, times, and a verdict.
#
#     bench/gpu.sh --help
#
# PYTHON names the interpreter. What is done stands in gpu_run.py, which needs nothing built and no torch.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/gpu_run.py" "$@"
