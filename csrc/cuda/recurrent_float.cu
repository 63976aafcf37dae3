#include "cuda/recurrent.cuh"

template int lif::cuda::launch_recurrent_forward(const lif::RecurrentForward<float, float>&, void*);
template int lif::cuda::launch_recurrent_backward(const lif::RecurrentBackward<float, float>&, void*);
