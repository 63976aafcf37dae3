// From the sums of a call to one launch, or two. Included by a source file.
#pragma once

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/sums.cuh"
#include "cuda/tiers.cuh"

namespace lif::cuda {

// How a column is shared out: by sizes alone, so that the order of a sum is the same on every card.
struct Sharing {
  int lanes;
  int64_t pieces;
};

template <typename S>
Sharing sharing_of(const PartialSum<S>& sum) {
  const int lanes = sum.repeat == 1 ? static_cast<int>(std::clamp<int64_t>(sum.columns, 1, kSumThreads)) : 1;
  const int64_t items = sum.rows * sum.repeat;
  const int64_t chunks = ceil_div(std::max<int64_t>(sum.columns, 1), lanes);
  const int64_t worth = items / (kLeastOfThread * (kSumThreads / lanes));
  return {lanes, std::clamp<int64_t>(std::min(worth, kSumBlocks / chunks), 1, kSumBlocks)};
}

template <typename S>
int64_t sum_scratch(const std::vector<PartialSum<S>>& sums) {
  int64_t doubles = 0;
  bool in_pieces = false;
  for (const PartialSum<S>& sum : sums) {
    const int64_t pieces = sharing_of(sum).pieces;
    in_pieces = in_pieces || pieces > 1;
    doubles += pieces * sum.columns;
  }
  return in_pieces ? doubles : 0;
}

template <typename From, typename To>
int launch_pieces(PieceSums<From, To>& sums, size_t count, const On& on) {
  for (const PieceSum<From, To>& sum : sums.sum) {
    sums.blocks_of_each = std::max(sums.blocks_of_each, ceil_div(sum.columns, sum.lanes) * sum.pieces);
  }
  const int64_t blocks = sums.blocks_of_each * static_cast<int64_t>(count);
  return blocks == 0
             ? cudaSuccess
             : launch<&sum_kernel<From, To>>(sums, blocks, kSumThreads, kSumThreads * sizeof(double), on);
}

template <typename S>
int launch_sums(const std::vector<PartialSum<S>>& sums, double* scratch, void* stream) {
  On on{{}, static_cast<cudaStream_t>(stream)};
  if (const auto error = current_device(on.device); error != cudaSuccess) {
    return error;
  }
  PieceSums<S, S> whole;
  PieceSums<S, double> pieces;
  PieceSums<double, S> together;
  for (size_t i = 0; i < sums.size(); ++i) {
    const PartialSum<S>& sum = sums[i];
    const Sharing sharing = sharing_of(sum);
    const int64_t items = sum.rows * sum.repeat;
    whole.sum[i] = {sum.values, sum.sum, items, sum.columns, sum.repeat, 1, sharing.lanes};
    pieces.sum[i] = {sum.values, scratch, items, sum.columns, sum.repeat, sharing.pieces, sharing.lanes};
    const Sharing of_pieces = sharing_of(PartialSum<S>{nullptr, sharing.pieces, sum.columns, 1, nullptr});
    together.sum[i] = {scratch, sum.sum, sharing.pieces, sum.columns, 1, 1, of_pieces.lanes};
    scratch = scratch == nullptr ? nullptr : scratch + sharing.pieces * sum.columns;
  }
  if (scratch == nullptr) {
    return launch_pieces(whole, sums.size(), on);
  }
  const int error = launch_pieces(pieces, sums.size(), on);
  return error != cudaSuccess ? error : launch_pieces(together, sums.size(), on);
}

}  // namespace lif::cuda
