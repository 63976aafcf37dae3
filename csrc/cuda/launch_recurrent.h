// Launching the kernels of recurrent layers, as launch.h does those of the others. W is the type of the
// weight: that of the state, or T.
#pragma once

#include "neuron/recurrent.h"

namespace lif::cuda {

// The weight is transposed: row i is what a spike of neuron i adds.
template <typename T, typename W>
int launch_recurrent_forward(const RecurrentForward<T, W>& args, void* stream);

// And here it is as nn.Linear has it.
template <typename T, typename W>
int launch_recurrent_backward(const RecurrentBackward<T, W>& args, void* stream);

}  // namespace lif::cuda
