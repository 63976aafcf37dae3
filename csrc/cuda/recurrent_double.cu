#include "cuda/recurrent.cuh"

template int lif::cuda::launch_recurrent_forward(const lif::RecurrentForward<double, double>&, void*);
template int lif::cuda::launch_recurrent_backward(const lif::RecurrentBackward<double, double>&, void*);
