#include "cuda/launch_plain.cuh"

template int lif::cuda::backward_plain(const lif::Backward<lif::Half>&, const On&, bool&);
