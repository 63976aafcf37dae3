// The facts of this build, for `python -m lif_cuda info`. setup.py passes them as macros.
//
// A module of its own: pybind11 in the operator libraries would tie them to Python. Its headers are torch's;
// of torch itself there is nothing in it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "cpu/simd.h"

namespace py = pybind11;

namespace {

std::string_view compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "g++ " __VERSION__;
#else
#error "build_facts.cpp: unknown compiler; expected g++ or clang++"
#endif
}

std::optional<std::string> if_given(const std::string& text) {
  return text.empty() ? std::nullopt : std::optional<std::string>(text);
}

std::vector<std::string> simd_levels() {
  std::vector<std::string> levels;
  std::istringstream stream(LIF_SIMD_LEVELS);
  for (std::string level; std::getline(stream, level, ',');) {
    levels.push_back(level);
  }
  return levels;
}

py::dict facts() {
  py::dict out;
  out["kind"] = LIF_BUILD_KIND;
  out["compiler"] = compiler();
  out["cpp_standard"] = __cplusplus;
  out["torch"] = LIF_TORCH_VERSION;
  out["for_torch"] = LIF_FOR_TORCH;
  out["torch_cuda"] = if_given(LIF_TORCH_CUDA);
  out["cuda"] = if_given(LIF_CUDA_VERSION);
  out["cuda_archs"] = if_given(LIF_CUDA_ARCHS);
  out["no_cuda_because"] = if_given(LIF_NO_CUDA_BECAUSE);
  out["simd_levels"] = simd_levels();
  out["simd_best"] = lif::simd_name(lif::best_simd());
  out["simd"] = lif::simd_name(lif::active_simd());
  return out;
}

}  // namespace

PYBIND11_MODULE(_build, m) {
  m.doc() = "The facts of this build of lif_cuda.";
  m.def("facts", &facts, "What was built, with what, against what, and the SIMD level in use.");
}
