// Products with spikes on the CPU: tensors in, rows on torch's own threads, tensors out.
#include <atomic>

#include "cpu/events_dispatch.h"
#include "ops/words.h"

namespace lif::ops {
namespace {

// Additions, or numbers that are read, below which a thread's start costs more than it saves.
constexpr int64_t kWorthAThread = 65536;

// Run `run(begin, end)` over all tasks, which together are some `work`; each thread has some tasks in a row.
template <typename Run>
void run_tasks(int64_t tasks, int64_t work, const Run& run) {
  const int64_t most = work / kWorthAThread;
  const int64_t threads = std::min<int64_t>(most < 1 ? 1 : most, torch::stable::get_num_threads());
  if (threads == 1 || tasks <= 1) {
    if (tasks > 0) {
      run(int64_t{0}, tasks);
    }
    return;
  }
  torch::stable::parallel_for(0, tasks, (tasks + threads - 1) / threads,
                              [&](int64_t begin, int64_t end) { run(begin, end); });
}

struct WordsCpu {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  template <typename T>
  static bool pack(const T* spikes, int64_t rows, int64_t neurons, uint64_t* words, const Tensor&) {
    const auto kernels = cpu::active_event_kernels<T>();
    std::atomic<bool> all{true};
    run_tasks(rows, rows * neurons, [&](int64_t begin, int64_t end) {
      if (!kernels.pack(spikes, neurons, words, begin, end)) {
        all = false;
      }
    });
    return all;
  }

  template <typename T>
  static void unpack(const uint64_t* words, int64_t rows, int64_t neurons, T* spikes, const Tensor&) {
    const auto kernels = cpu::active_event_kernels<T>();
    run_tasks(rows, rows * neurons,
              [&](int64_t begin, int64_t end) { kernels.unpack(words, neurons, spikes, begin, end); });
  }
};

template <typename T>
int64_t count(const cpu::EventKernels<T>& kernels, const Tensor& words, int64_t inputs) {
  const int64_t rows = rows_of(words);
  std::atomic<int64_t> spikes{0};
  std::atomic<bool> clean{true};
  run_tasks(rows, rows * spike_words(inputs), [&](int64_t begin, int64_t end) {
    const int64_t some = kernels.count(read_words(words), inputs, begin, end);
    if (some < 0) {
      clean = false;
    } else {
      spikes += some;
    }
  });
  STD_TORCH_CHECK(clean, "words must have no bits behind the last of ", inputs, " spikes of a row");
  return spikes;
}

template <typename T>
std::vector<Tensor> product_of(const Tensor& words, const Tensor& weight, const std::optional<Tensor>& bias) {
  using S = StateOf<T>;
  const auto kernels = cpu::active_event_kernels<T>();
  cpu::SpikeProduct<T> args;
  args.rows = rows_of(words);
  args.outputs = weight.sizes()[0];
  args.inputs = weight.sizes()[1];
  args.words = read_words(words);
  args.bias = bias ? read<T>(&*bias) : nullptr;
  const int64_t spikes = count(kernels, words, args.inputs);

  Returned returned(weight);
  const Shape shape = with_last(words, args.outputs);
  args.y = returned.add<T>(true, shape, weight.scalar_type());
  std::optional<Tensor> sums;
  if constexpr (std::is_same_v<T, S>) {
    args.sums = args.y;
  } else {
    sums = new_empty(weight, shape, kTypeOf<S>);
    args.sums = static_cast<S*>(sums->mutable_data_ptr());
  }
  const Tensor panels =
      new_empty(weight, Shape{kernels.panel_elements(args.inputs, args.outputs)}, kTypeOf<S>);
  auto* const packed = static_cast<S*>(panels.mutable_data_ptr());
  args.panels = packed;
  if (args.rows > 0) {
    run_tasks(kernels.panel_tasks(args.inputs, args.outputs), args.inputs * args.outputs,
              [&](int64_t begin, int64_t end) {
                kernels.pack_weight(read<T>(&weight), args.inputs, args.outputs, packed, begin, end);
              });
    run_tasks(args.rows, (spikes + args.rows) * args.outputs / 4,
              [&](int64_t begin, int64_t end) { kernels.product(args, begin, end); });
  }
  returned.push(torch::stable::new_zeros(words, Shape{}, ScalarType::Long));
  *static_cast<int64_t*>(returned.back().mutable_data_ptr()) = spikes;
  return returned.take();
}

std::vector<Tensor> spike_linear(const Tensor& words, const Tensor&, const Tensor& weight,
                                 const std::optional<Tensor>& bias) {
  STD_TORCH_CHECK(weight.dim() == 2, "weight must have two axes, [outputs, inputs]");
  check_words(words, weight.sizes()[1]);
  check_same(words, weight, "weight");
  if (bias) {
    check_same(words, *bias, "bias");
    STD_TORCH_CHECK(bias->dim() == 1 && bias->sizes()[0] == weight.sizes()[0] &&
                        bias->scalar_type() == weight.scalar_type(),
                    "bias must have a number for each output, of the dtype of weight");
  }
  std::optional<Tensor> dense_bias;
  if (bias) {
    dense_bias = torch::stable::contiguous(*bias);
  }
  return with_type_of(weight, [&](auto* of) {
    return product_of<std::remove_pointer_t<decltype(of)>>(torch::stable::contiguous(words),
                                                           torch::stable::contiguous(weight), dense_bias);
  });
}

template <typename T>
Tensor gradient_of(const Tensor& words, const Tensor& grad_y, int64_t inputs) {
  const auto kernels = cpu::active_event_kernels<T>();
  cpu::SpikeGradient<T> args;
  args.rows = rows_of(words);
  args.inputs = inputs;
  args.outputs = grad_y.sizes().back();
  const int64_t spikes = count(kernels, words, inputs);
  const Tensor columns = new_empty(words, Shape{inputs, spike_words(args.rows)}, ScalarType::Long);
  auto* const to = static_cast<uint64_t*>(columns.mutable_data_ptr());
  const int64_t row_words = spike_words(inputs);
  // A word and 64 rows take as long as so many additions.
  constexpr int64_t kSquare = 1024;
  run_tasks(row_words, row_words * spike_words(args.rows) * kSquare, [&](int64_t begin, int64_t end) {
    kernels.transpose_words(read_words(words), args.rows, inputs, to, begin, end);
  });
  Tensor grad_weight = new_empty(grad_y, Shape{args.outputs, inputs}, grad_y.scalar_type());
  args.columns = to;
  args.grad_y = read<T>(&grad_y);
  args.grad_weight = static_cast<T*>(grad_weight.mutable_data_ptr());
  const int64_t work = (spikes + inputs) * args.outputs / 4;
  const int64_t threads = torch::stable::get_num_threads();
  args.task_inputs = std::clamp<int64_t>((inputs + threads - 1) / threads, 1, cpu::kTaskInputs);
  run_tasks(kernels.gradient_tasks(args), work,
            [&](int64_t begin, int64_t end) { kernels.gradient(args, begin, end); });
  return grad_weight;
}

Tensor spike_gradient(const Tensor& words, const Tensor& like, const Tensor& grad_y) {
  STD_TORCH_CHECK(like.dim() > 0, "like must have an axis of neurons");
  const int64_t inputs = like.sizes().back();
  check_words(words, inputs);
  check_same(words, grad_y, "grad_y");
  STD_TORCH_CHECK(grad_y.dim() == words.dim() && with_last(words, grad_y.sizes().back()) == shape_of(grad_y),
                  "grad_y and words must have the same rows");
  return with_type_of(grad_y, [&](auto* of) {
    return gradient_of<std::remove_pointer_t<decltype(of)>>(torch::stable::contiguous(words),
                                                            torch::stable::contiguous(grad_y), inputs);
  });
}

}  // namespace
}  // namespace lif::ops

STABLE_TORCH_LIBRARY_IMPL(lif_cuda, CPU, m) {
  m.impl("spike_pack", TORCH_BOX(&lif::ops::spike_pack<lif::ops::WordsCpu>));
  m.impl("spike_unpack", TORCH_BOX(&lif::ops::spike_unpack<lif::ops::WordsCpu>));
  m.impl("spike_linear", TORCH_BOX(&lif::ops::spike_linear));
  m.impl("spike_gradient", TORCH_BOX(&lif::ops::spike_gradient));
}
