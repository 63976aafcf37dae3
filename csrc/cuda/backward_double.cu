#include "cuda/launch_any.cuh"

template int lif::cuda::launch_backward(const lif::Backward<double>&, void*);
template int lif::cuda::longest_chunk<double>(const lif::Neuron<double>&, int64_t&);
