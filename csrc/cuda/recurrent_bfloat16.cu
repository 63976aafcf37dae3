#include "cuda/recurrent.cuh"

template int lif::cuda::launch_recurrent_forward(const lif::RecurrentForward<lif::BFloat16, float>&, void*);
template int lif::cuda::launch_recurrent_backward(const lif::RecurrentBackward<lif::BFloat16, float>&, void*);
template int lif::cuda::launch_recurrent_forward(const lif::RecurrentForward<lif::BFloat16, lif::BFloat16>&,
                                                 void*);
template int lif::cuda::launch_recurrent_backward(const lif::RecurrentBackward<lif::BFloat16, lif::BFloat16>&,
                                                  void*);
