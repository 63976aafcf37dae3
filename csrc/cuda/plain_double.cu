#include "cuda/launch_plain.cuh"

template int lif::cuda::backward_plain(const lif::Backward<double>&, const On&, bool&);
