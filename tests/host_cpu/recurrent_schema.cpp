// The schemas of recurrent layers alone, for a library of these operators in a namespace of its own: it is
// compiled with -Dlif_cuda=NAME.
#include <torch/csrc/stable/library.h>

#include "bindings/recurrent.h"

STABLE_TORCH_LIBRARY(lif_cuda, m) {
  m.def(lif::bindings::kRecurrentSchema);
  m.def(lif::bindings::kRecurrentForwardSchema);
  m.def(lif::bindings::kRecurrentBackwardSchema);
  m.def(lif::bindings::kRecurrentWeightsSchema);
}
