// The schemas of the operators.
#include <torch/csrc/stable/library.h>

#include "bindings/interface.h"
#include "bindings/recurrent.h"

STABLE_TORCH_LIBRARY(lif_cuda, m) {
  m.def(lif::bindings::kForwardSchema);
  m.def(lif::bindings::kBackwardSchema);
  m.def(lif::bindings::kDifferentiableSchema);
  m.def(lif::bindings::kPackSchema);
  m.def(lif::bindings::kUnpackSchema);
  m.def(lif::bindings::kSpikeLinearSchema);
  m.def(lif::bindings::kSpikeGradientSchema);
  m.def(lif::bindings::kRecurrentSchema);
  m.def(lif::bindings::kRecurrentForwardSchema);
  m.def(lif::bindings::kRecurrentBackwardSchema);
  m.def(lif::bindings::kRecurrentWeightsSchema);
}
