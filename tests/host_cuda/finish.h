// The end of a launch on the host.
#pragma once

#include <string>

#include "machine.h"
#include "ops/tensors.h"

namespace lif::ops {

// Raise what went wrong: an error of the launch, or a fault of its kernels.
inline void finish(int error) {
  const std::string fault = host_cuda::take_fault();
  STD_TORCH_CHECK(error == 0, "CUDA error ", error);
  STD_TORCH_CHECK(fault.empty(), fault);
}

}  // namespace lif::ops
