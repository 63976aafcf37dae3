#include "cuda/launch_sums.cuh"

namespace lif::cuda {

template int64_t sum_scratch(const std::vector<PartialSum<float>>&);
template int64_t sum_scratch(const std::vector<PartialSum<double>>&);
template int launch_sums(const std::vector<PartialSum<float>>&, double*, void*);
template int launch_sums(const std::vector<PartialSum<double>>&, double*, void*);

}  // namespace lif::cuda
