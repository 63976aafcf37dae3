// The schemas of the operators.
#include <torch/csrc/stable/library.h>

#include "ops/interface.h"
#include "ops/recurrent_interface.h"

STABLE_TORCH_LIBRARY(lif_cuda, m) {
  m.def(lif::ops::kForwardSchema);
  m.def(lif::ops::kBackwardSchema);
  m.def(lif::ops::kDifferentiableSchema);
  m.def(lif::ops::kPackSchema);
  m.def(lif::ops::kUnpackSchema);
  m.def(lif::ops::kSpikeLinearSchema);
  m.def(lif::ops::kSpikeGradientSchema);
  m.def(lif::ops::kRecurrentSchema);
  m.def(lif::ops::kRecurrentForwardSchema);
  m.def(lif::ops::kRecurrentBackwardSchema);
  m.def(lif::ops::kRecurrentWeightsSchema);
}
