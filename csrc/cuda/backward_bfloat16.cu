#include "cuda/launch_any.cuh"

template int lif::cuda::launch_backward(const lif::Backward<lif::BFloat16>&, void*);
template int lif::cuda::longest_chunk<lif::BFloat16>(const lif::Neuron<float>&, int64_t&);
