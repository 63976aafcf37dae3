#include "cuda/launch_any.cuh"

template int lif::cuda::launch_backward(const lif::Backward<float>&, void*);
template int lif::cuda::longest_chunk<float>(const lif::Neuron<float>&, int64_t&);
