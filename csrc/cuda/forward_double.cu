#include "cuda/launch_forward.cuh"

template int lif::cuda::launch_forward(const lif::Forward<double>&, void*);
