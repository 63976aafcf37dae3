// The schemas of the operators; what the arguments mean stands in problem.h.
//
// No `str` argument: its conversion leaks in the stable ABI, so options travel as ints. The checks that a
// user meets are in Python, where they can name the argument and the remedy.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(lif_cuda, m) {
  m.def(
      "lif_forward(Tensor x, Tensor? membrane, Tensor? beta, float beta_value, Tensor? threshold, "
      "float threshold_value, SymInt steps, int outputs, SymInt checkpoint_every) -> Tensor[]");
  m.def(
      "lif_backward(Tensor x, Tensor? membrane, Tensor? beta, float beta_value, Tensor? threshold, "
      "float threshold_value, SymInt steps, Tensor? checkpoints, SymInt checkpoint_every, "
      "Tensor? grad_spikes, Tensor? grad_count, Tensor? grad_membrane, int surrogate, float slope, "
      "float scale, bool detach_reset, int wanted) -> Tensor[]");
}
