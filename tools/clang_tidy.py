"""clang-tidy over the C++ of the repository, for `make lint`; .clang-tidy has the checks.

    python -P tools/clang_tidy.py                  all, about half a minute on two cores
    python -P tools/clang_tidy.py lif_cpu.cpp      the sources whose names contain a word

Headers are looked at through the sources that include them, and csrc/cuda through the host's CUDA
(tests/host_cuda), as C++ that clang parses without the headers of CUDA.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from _compile import CSRC, ROOT
from host_cuda.harness import SHIM, TARGET_FLAG
from torch.utils import cpp_extension

# setup.py's macros of build_facts.cpp; what they say does not matter here.
FACTS = (
    "LIF_BUILD_KIND",
    "LIF_TORCH_VERSION",
    "LIF_FOR_TORCH",
    "LIF_TORCH_CUDA",
    "LIF_CUDA_VERSION",
    "LIF_CUDA_ARCHS",
    "LIF_NO_CUDA_BECAUSE",
    "LIF_SIMD_LEVELS",
)


# Kernels count steps, and what a thread keeps of them, in 32 bits: less to compute.
KERNEL_CHECKS = "--checks=-bugprone-implicit-widening-of-multiplication-result"


def sources() -> dict[str, list[str]]:
    """Each source with its own flags. A file that is there for each type or target is looked at once."""
    stable = [TARGET_FLAG]
    host_cuda = [f"-I{SHIM}"]
    return {
        # The slowest first.
        **{f"csrc/cuda/{way}_bfloat16.cu": ["-xc++", *host_cuda] for way in ("plain", "backward", "forward")},
        "tests/host_cuda/entry.cpp": [*stable, *host_cuda],
        **{
            f"tests/host_cuda/{name}.cpp": host_cuda
            for name in ("machine", "shared_memory", "fiber", "probes")
        },
        "csrc/autograd/node.cpp": ["-DAT_PER_OPERATOR_HEADERS"],
        "csrc/build_info/build_facts.cpp": [f'-D{name}=""' for name in FACTS],
        "csrc/ops/lif_cpu.cpp": stable,
        "csrc/ops/lif_cuda.cpp": [*stable, "-DUSE_CUDA"],
        "csrc/cpu/backward_avx2.cpp": [],
        "csrc/cpu/forward_avx2.cpp": [],
        "tests/host_cpu/driver.cpp": [],
        "tests/aoti/main.cpp": ["-std=c++20"],
        "csrc/ops/schema.cpp": stable,
        "csrc/ops/events_cpu.cpp": stable,
        "tests/host_cuda/words_entry.cpp": [*stable, *host_cuda],
    }


def check(source: str, flags: list[str]) -> str:
    """What clang-tidy says of a source; empty where all is well."""
    foreign = [*cpp_extension.include_paths(), sysconfig.get_path("include")]
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("clang-tidy")),
            "--quiet",
            *([KERNEL_CHECKS] if source.endswith(".cu") else []),
            str(ROOT / source),
            "--",
            "-std=c++17",
            f"-I{CSRC}",
            *(part for path in foreign for part in ("-isystem", path)),
            *flags,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    # Standard error counts the warnings of foreign headers.
    return "" if done.returncode == 0 else f"{source}\n{done.stdout}{done.stderr}"


def main() -> int:
    """Look at all sources, or those asked for; 1 where there is a finding."""
    words = sys.argv[1:]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chosen = {
            source: flags
            for source, flags in sources().items()
            if not words or any(word in source for word in words)
        }
        findings = [text for text in pool.map(check, chosen, chosen.values()) if text]
    print("\n".join(findings) or f"clang-tidy: {len(chosen)} sources pass")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
