"""The CPU operators of recurrent layers under the address and undefined-behaviour sanitizers of GCC.

They are compiled once more, into a library of their own, whose operators take the place of the package's in a
process that runs tests/test_recurrent.py.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _compile import CSRC, CXX_FLAGS, compile_source, cxx
from host_cuda.harness import TARGET_FLAG

HERE = Path(__file__).resolve().parent
# Loaded before torch is: the operators of the library, and then the tests, in one process.
RUN = """
import sys
import pytest, torch
torch.ops.load_library(sys.argv[1])
from lif_cuda import _ops
for name in ("recurrent", "recurrent_forward", "recurrent_backward", "recurrent_weights"):
    setattr(_ops, name, getattr(torch.ops.lif_cuda_sanitized, name).default)
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-s", *sys.argv[2:]]))
"""


@pytest.mark.slow
def test_sanitized(tmp_path: Path) -> None:
    compiler = cxx()
    if compiler is None:
        pytest.skip("no C++ compiler")
    # With the standard library: a sanitizer that is loaded before it cannot pass on a C++ exception.
    runtimes = []
    for name in ("libasan.so", "libstdc++.so"):
        asked = [compiler, f"-print-file-name={name}"]
        runtimes.append(
            Path(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip())
        )
    if not all(runtime.is_absolute() for runtime in runtimes):
        pytest.skip("the C++ compiler has no libasan.so to load into Python")
    levels = ("baseline", "avx2", "avx512") if platform.machine() in ("x86_64", "AMD64") else ("baseline",)
    sources = [CSRC / "cpu" / f"recurrent_{level}.cpp" for level in levels]
    sources += [CSRC / "ops" / "recurrent_cpu.cpp", HERE / "host_cpu" / "recurrent_schema.cpp"]
    torch_folder = Path(torch.__path__[0])
    library = tmp_path / "lif_cuda_sanitized.so"
    compile_source(
        [
            compiler,
            *CXX_FLAGS,
            *("-O1", "-std=c++17", "-fPIC", "-shared", "-Dlif_cuda=lif_cuda_sanitized"),
            *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
            *(f"-I{CSRC}", TARGET_FLAG, "-isystem", torch_folder / "include"),
            *sources,
            *("-o", library, f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch", "-ltorch_cpu"),
        ]
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN, str(library), str(HERE / "test_recurrent.py")],
        env=os.environ
        | {
            "LD_PRELOAD": " ".join(str(runtime.resolve()) for runtime in runtimes),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            # Python keeps memory until it ends; and it is Python that is preloaded.
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
