"""The extensions. Everything that is not one stands in pyproject.toml.

Four libraries, because the operators must load without Python (AOTInductor does so), without CUDA, and
beside other versions of torch:

    lif_cuda/_kernels.so         operators and CPU kernels; no Python symbols
    lif_cuda/_kernels_cuda.so    the CUDA kernels of the same operators; where CUDA is built
    lif_cuda/_node.<abi>.so      pybind11 module, the operators under autograd; beside this very torch
    lif_cuda/_build.<abi>.so     Python module with the facts of the build; no torch

pybind11 is the one in torch's headers. An editable install has them in lif_cuda.libs/, beside the folder
packages and not in the source, so that they go when it is uninstalled and each environment has its own.

LIF_CUDA_BUILD=auto|cpu|cuda, LIF_CUDA_FOR_TORCH, TORCH_CUDA_ARCH_LIST, CUDA_HOME, CXX and MAX_JOBS are read.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "build_backend"))

import lif_build  # noqa: E402  (found through the line above)


def define_string(name: str, value: str) -> tuple[str, str]:
    """A macro that expands to a C string."""
    return name, '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"'))


def with_headers(flags: list[str], folders: list[str]) -> list[str]:
    """Flags with foreign headers, whose warnings are not ours to mend."""
    return flags + [part for folder in folders for part in ("-isystem", folder)]


def extensions(plan: lif_build.Plan, for_torch: str) -> list[Extension]:
    """The libraries of this plan, whose operators load beside ``for_torch`` and newer."""
    from torch.utils import cpp_extension

    x86 = platform.machine() in ("x86_64", "AMD64")
    simd = ["baseline", *(["avx2", "avx512"] if x86 else [])]
    target = ("TORCH_TARGET_VERSION", lif_build.target_version(for_torch))
    common: dict[str, Any] = {"language": "c++", "include_dirs": [str(ROOT / "csrc")]}

    kernels = Extension(
        "lif_cuda._kernels",
        [
            "csrc/ops/schema.cpp",
            "csrc/ops/lif_cpu.cpp",
            "csrc/ops/events_cpu.cpp",
            "csrc/ops/recurrent_cpu.cpp",
            # The longest first, so that no core waits for the last.
            *(
                f"csrc/cpu/{way}_{level}.cpp"
                for way in ("backward", "forward", "events", "recurrent")
                for level in simd
            ),
        ],
        define_macros=[target],
        extra_compile_args={"cxx": with_headers(lif_build.CXX_FLAGS, cpp_extension.include_paths())},
        library_dirs=cpp_extension.library_paths(),
        libraries=["c10", "torch", "torch_cpu"],
        extra_link_args=lif_build.LINK_FLAGS,
        **common,
    )
    facts = Extension(
        "lif_cuda._build",
        ["csrc/build_info/build_facts.cpp"],
        define_macros=[
            define_string("LIF_BUILD_KIND", plan.kind),
            define_string("LIF_TORCH_VERSION", plan.torch_version),
            define_string("LIF_FOR_TORCH", for_torch),
            define_string("LIF_TORCH_CUDA", plan.torch_cuda or ""),
            define_string("LIF_CUDA_VERSION", plan.nvcc.version if plan.nvcc else ""),
            define_string("LIF_CUDA_ARCHS", os.environ["TORCH_CUDA_ARCH_LIST"] if plan.nvcc else ""),
            define_string("LIF_NO_CUDA_BECAUSE", plan.no_cuda_because),
            define_string("LIF_SIMD_LEVELS", ",".join(simd)),
        ],
        extra_compile_args={"cxx": lif_build.CXX_FLAGS},
        **common,
    )
    with_torch = with_headers(lif_build.CXX_FLAGS, cpp_extension.include_paths())
    node = Extension(
        "lif_cuda._node",
        ["csrc/autograd/node.cpp"],
        # torch's headers bring the pybind11 that they were written for, and all operators unless told so.
        define_macros=[("AT_PER_OPERATOR_HEADERS", None)],
        # There is nothing for -O3 to vectorise: a call takes as long, and the build 6 s less.
        extra_compile_args={"cxx": [*with_torch, "-O2"]},
        library_dirs=cpp_extension.library_paths(),
        libraries=["c10", "torch", "torch_cpu", "torch_python"],
        **common,
    )
    if plan.nvcc is None:
        return [kernels, node, facts]
    cuda = Extension(
        "lif_cuda._kernels_cuda",
        [
            "csrc/ops/lif_cuda.cpp",
            "csrc/ops/recurrent_cuda.cpp",
            "csrc/ops/words_cuda.cpp",
            *sorted(str(path) for path in Path("csrc/cuda").glob("*.cu")),
        ],
        define_macros=[target, ("USE_CUDA", None)],
        extra_compile_args={
            "cxx": with_headers(lif_build.CXX_FLAGS, cpp_extension.include_paths("cuda")),
            "nvcc": lif_build.NVCC_FLAGS,
        },
        library_dirs=cpp_extension.library_paths("cuda"),
        libraries=["c10", "torch", "torch_cpu", "c10_cuda", "torch_cuda", "cudart"],
        extra_link_args=lif_build.LINK_FLAGS,
        **common,
    )
    return [kernels, cuda, node, facts]


def build_folder(plan: lif_build.Plan, for_torch: str) -> str:
    """A folder for each kind of build: ninja leaves unchanged objects alone there, and two environments can
    build from one checkout."""
    own = for_torch == lif_build.oldest_torch({}, plan.torch_version)
    return f"build/{plan.kind}-torch-{plan.torch_version}" + ("" if own else f"-for-{for_torch}")


def commands(plan: lif_build.Plan, folder: str) -> dict[str, type]:
    """torch's build_ext, with the two things that it cannot be told."""
    from setuptools.command.build_py import build_py
    from setuptools.errors import CompileError
    from torch.utils.cpp_extension import BuildExtension

    class BuildLibraries(BuildExtension):
        extensions: list[Extension]
        build_temp: str
        editable_mode: bool

        def finalize_options(self) -> None:
            """An editable install compiles where others do, to find their objects; not into the source."""
            super().finalize_options()
            self.build_temp = os.path.join(folder, f"temp-{sys.implementation.cache_tag}")
            if self.editable_mode:
                self.inplace = False

        def get_ext_fullpath(self, ext_name: str) -> str:
            """Of an editable install: in the wheel, in a folder that it owns."""
            path = str(super().get_ext_fullpath(ext_name))
            if not self.editable_mode:
                return path
            wheel = self.get_finalized_command("install").install_platlib
            return os.path.join(wheel, lif_build.facts_module().EDITABLE_FOLDER, os.path.basename(path))

        def get_outputs(self) -> list[str]:
            """Of an editable install none, which setuptools would look for among the Python files."""
            return [] if self.editable_mode else list(super().get_outputs())

        def get_ext_filename(self, ext_name: str) -> str:
            """Operator libraries are no Python modules: no Python ABI in their names."""
            if ext_name.rpartition(".")[2].startswith("_kernels"):
                return os.path.join(*ext_name.split(".")) + ".so"
            return str(super().get_ext_filename(ext_name))

        def run(self) -> None:
            """Build. Take away what an earlier build in place left, which would be loaded instead."""
            for message in filter(None, (lif_build.warning(plan), lif_build.ninja_warning())):
                lif_build.say_aloud(message)
            stale = "*.so" if self.editable_mode else "_kernels_cuda.so" if self.inplace else None
            for library in (ROOT / "lif_cuda").glob(stale) if stale else ():
                library.unlink()
            super().run()

        def build_extensions(self) -> None:
            """Each library in a process of its own: torch's helper starts ninja for one after the other.

            On two cores the package installs in 83 s and not 99. Who sets MAX_JOBS may lack the memory, some
            1 GB a process. Where there is CUDA it may have been started here, and it does not outlive a fork.
            """
            if plan.nvcc is not None or os.environ.get("MAX_JOBS") or not hasattr(os, "fork"):
                super().build_extensions()
                return
            extensions, folder = self.extensions, self.build_temp
            children = []
            for extension in extensions:
                child = os.fork()
                if child:
                    children.append(child)
                    continue
                status = 1
                try:
                    self.extensions = [extension]
                    self.build_temp = os.path.join(folder, extension.name)  # with a ninja file of its own
                    super().build_extensions()
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(status)
            codes = [os.waitpid(child, 0)[1] for child in children]
            failed = [e.name for e, code in zip(extensions, codes, strict=True) if code]
            if failed:
                raise CompileError(f"could not build {', '.join(failed)}; the errors stand above")

    class BuildPython(build_py):
        def run(self) -> None:
            """Start from an empty folder: all that lies there goes into the wheel."""
            if not self.editable_mode:
                shutil.rmtree(self.build_lib, ignore_errors=True)
            super().run()

    return {"build_ext": BuildLibraries, "build_py": BuildPython}


def main() -> None:
    """Hand the extensions to setuptools; commands that compile nothing need no torch."""
    if not lif_build.BUILD_COMMANDS.intersection(sys.argv[1:]):
        setup()
        return
    try:
        plan = lif_build.make_plan(os.environ)
        for_torch = lif_build.oldest_torch(os.environ, plan.torch_version)
    except lif_build.BuildError as error:
        sys.exit(f"error: {error}")
    lif_build.settle_environment(plan, os.environ)
    folder = build_folder(plan, for_torch)
    setup(
        ext_modules=extensions(plan, for_torch),
        cmdclass=commands(plan, folder),
        options={"build": {"build_base": folder}},
    )


main()
