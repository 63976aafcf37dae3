#include "cuda/launch_plain.cuh"

template int lif::cuda::backward_plain(const lif::Backward<float>&, const On&, bool&);
