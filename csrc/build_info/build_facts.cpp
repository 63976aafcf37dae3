// The facts of this build, for `python -m lif_cuda info`. setup.py passes them as macros.
//
// A module of its own, as the operator libraries have nothing of Python. It is written in Python's own
// interface: with pybind11 it took 6 of the build's 146 s of computing.
#include <Python.h>

#include "cpu/simd.h"

namespace {

#if defined(__clang__)
constexpr const char* kCompiler = "clang " __clang_version__;
#elif defined(__GNUC__)
constexpr const char* kCompiler = "g++ " __VERSION__;
#else
#error "build_facts.cpp: unknown compiler; expected g++ or clang++"
#endif

// What is null here is None in Python.
constexpr const char* if_given(const char* text) { return *text == '\0' ? nullptr : text; }

PyObject* simd_levels() {
  PyObject* names = PyUnicode_FromString(LIF_SIMD_LEVELS);
  PyObject* levels = names == nullptr ? nullptr : PyObject_CallMethod(names, "split", "s", ",");
  Py_XDECREF(names);
  return levels;
}

PyObject* facts(PyObject*, PyObject*) {
  // "s" a text, "z" a text or None, "l" a long, "N" an object that the dict takes over.
  return Py_BuildValue(                                                //
      "{s:s, s:s, s:l, s:s, s:s, s:z, s:z, s:z, s:z, s:N, s:s, s:s}",  //
      "kind", LIF_BUILD_KIND,                                          //
      "compiler", kCompiler,                                           //
      "cpp_standard", __cplusplus,                                     //
      "torch", LIF_TORCH_VERSION,                                      //
      "for_torch", LIF_FOR_TORCH,                                      //
      "torch_cuda", if_given(LIF_TORCH_CUDA),                          //
      "cuda", if_given(LIF_CUDA_VERSION),                              //
      "cuda_archs", if_given(LIF_CUDA_ARCHS),                          //
      "no_cuda_because", if_given(LIF_NO_CUDA_BECAUSE),                //
      "simd_levels", simd_levels(),                                    //
      "simd_best", lif::simd_name(lif::best_simd()),                   //
      "simd", lif::simd_name(lif::active_simd()));
}

PyMethodDef methods[] = {
    {"facts", &facts, METH_NOARGS, "What was built, with what, against what, and the SIMD level in use."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    "_build",
    "The facts of this build of lif_cuda.",
    -1,
    methods,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

// Python looks for a function of this name. NOLINTNEXTLINE(bugprone-reserved-identifier)
PyMODINIT_FUNC PyInit__build() { return PyModule_Create(&definition); }
