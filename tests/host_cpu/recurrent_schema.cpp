// The schemas of recurrent layers alone, for a library of these operators in a namespace of its own: it is
// compiled with -Dlif_cuda=NAME.
#include <torch/csrc/stable/library.h>

#include "ops/recurrent_interface.h"

STABLE_TORCH_LIBRARY(lif_cuda, m) {
  m.def(lif::ops::kRecurrentSchema);
  m.def(lif::ops::kRecurrentForwardSchema);
  m.def(lif::ops::kRecurrentBackwardSchema);
  m.def(lif::ops::kRecurrentWeightsSchema);
}
