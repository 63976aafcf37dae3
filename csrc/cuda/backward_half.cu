#include "cuda/launch_any.cuh"

template int lif::cuda::launch_backward(const lif::Backward<lif::Half>&, void*);
template int lif::cuda::longest_chunk<lif::Half>(const lif::Neuron<float>&, int64_t&);
