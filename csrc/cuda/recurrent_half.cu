#include "cuda/recurrent.cuh"

template int lif::cuda::launch_recurrent_forward(const lif::RecurrentForward<lif::Half, float>&, void*);
template int lif::cuda::launch_recurrent_backward(const lif::RecurrentBackward<lif::Half, float>&, void*);
template int lif::cuda::launch_recurrent_forward(const lif::RecurrentForward<lif::Half, lif::Half>&, void*);
template int lif::cuda::launch_recurrent_backward(const lif::RecurrentBackward<lif::Half, lif::Half>&, void*);
