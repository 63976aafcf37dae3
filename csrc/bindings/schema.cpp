// The schemas of the operators; what the arguments mean stands in problem.h.
//
// No `str` argument: its conversion leaks in the stable ABI, so options travel as ints. The checks that a
// user meets are in Python, where they can name the argument and the remedy.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(lif_cuda, m) {
  m.def(
      "lif_forward(Tensor x, Tensor?[] state, Tensor?[] parameters, float[] numbers, int time_dim, "
      "SymInt steps, bool time_first, int reset, int traits, int refractory, float rest, int outputs, "
      "SymInt checkpoint_every) -> Tensor[]");
  m.def(
      "lif_backward(Tensor x, Tensor?[] state, Tensor?[] parameters, float[] numbers, int time_dim, "
      "SymInt steps, bool time_first, int reset, int traits, int refractory, float rest, "
      "Tensor? checkpoints, SymInt checkpoint_every, Tensor? first_spike, Tensor?[] grads, int surrogate, "
      "float slope, float scale, Tensor? table, int wanted) -> Tensor[]");
}
