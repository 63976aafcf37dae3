// The schemas of the operators.
#include "bindings/operators.h"

STABLE_TORCH_LIBRARY(lif_cuda, m) {
  m.def(lif::bindings::kForwardSchema);
  m.def(lif::bindings::kBackwardSchema);
}
