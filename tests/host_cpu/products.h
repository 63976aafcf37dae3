// Products with spikes, for the driver: forward, the weight's gradient, and spikes to words and back.
#pragma once

#include <cinttypes>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "buffers.h"
#include "cpu/events_dispatch.h"

namespace {

struct ProductSize {
  int64_t rows, inputs, outputs;
};

// Tails of each kind, more than one panel, and more than one tile.
constexpr ProductSize kProducts[] = {{1, 1, 1},     {7, 64, 16},   {65, 130, 100}, {4, 0, 5},
                                     {66, 17, 270}, {9, 4200, 17}, {2100, 3, 40},  {5, 70, 0}};
constexpr double kRates[] = {0.0, 0.1, 0.8};

// Ranges of tasks on so many threads.
template <typename Run>
void share(int64_t tasks, int64_t threads, const Run& run) {
  std::vector<std::thread> workers;
  const int64_t part = (tasks + threads - 1) / threads;
  for (int64_t begin = 0; begin < tasks; begin += part) {
    workers.emplace_back([&run, begin, end = std::min(begin + part, tasks)] { run(begin, end); });
  }
  for (std::thread& worker : workers) {
    worker.join();
  }
}

// Everything that is computed, onto outputs.
template <typename T>
void run_product(const ProductSize& size, double rate, uint64_t seed, int64_t threads, Outputs& outputs) {
  using S = StateOf<T>;
  const cpu::EventKernels<T> kernels = cpu::active_event_kernels<T>();
  const auto [rows, inputs, columns] = size;
  const int64_t row_words = (inputs + 63) / 64;
  Inputs given(seed);
  Draw draw(seed + 1);
  Memory drawn(static_cast<size_t>(rows * inputs) * sizeof(T));
  auto* const fired = static_cast<T*>(drawn.data());
  for (int64_t i = 0; i < rows * inputs; ++i) {
    fired[i] = number<T>(draw.between(0, 1) < rate ? 1 : 0);
  }
  drawn.seal();
  const T* const weight = given.values<T>(columns * inputs, -1, 1);
  const T* const bias = given.values<T>(columns, -1, 1);
  const T* const grad = given.values<T>(rows * columns, -1, 1);

  auto* const words = outputs.values<uint64_t>(rows * row_words, "words");
  share(rows, threads, [&](int64_t begin, int64_t end) {
    if (!kernels.pack(fired, inputs, words, begin, end)) {
      fail("zeros and ones are refused");
    }
  });
  if (kernels.count(words, inputs, 0, rows) < 0) {
    fail("bits behind the last spike");
  }
  auto* const dense = outputs.values<T>(rows * inputs, "spikes");
  share(rows, threads, [&](int64_t begin, int64_t end) { kernels.unpack(words, inputs, dense, begin, end); });

  cpu::SpikeProduct<T> product;
  product.rows = rows;
  product.inputs = inputs;
  product.outputs = columns;
  product.words = words;
  product.bias = draw.in(1, 2) ? bias : nullptr;
  const Memory panels(static_cast<size_t>(kernels.panel_elements(inputs, columns)) * sizeof(S));
  auto* const packed = static_cast<S*>(panels.data());
  share(kernels.panel_tasks(inputs, columns), threads, [&](int64_t begin, int64_t end) {
    kernels.pack_weight(weight, inputs, columns, packed, begin, end);
  });
  product.panels = packed;
  product.sums = outputs.values<S>(rows * columns, "sums");
  if constexpr (std::is_same_v<T, S>) {
    product.y = product.sums;
  } else {
    product.y = outputs.values<T>(rows * columns, "y");
  }
  share(rows, threads, [&](int64_t begin, int64_t end) { kernels.product(product, begin, end); });

  cpu::SpikeGradient<T> gradient;
  gradient.rows = rows;
  gradient.inputs = inputs;
  gradient.outputs = columns;
  auto* const transposed = outputs.values<uint64_t>(inputs * ((rows + 63) / 64), "columns");
  share(row_words, threads, [&](int64_t begin, int64_t end) {
    kernels.transpose_words(words, rows, inputs, transposed, begin, end);
  });
  gradient.columns = transposed;
  gradient.grad_y = grad;
  gradient.grad_weight = outputs.values<T>(columns * inputs, "grad_weight");
  gradient.task_inputs =
      std::min<int64_t>(std::max<int64_t>((inputs + threads - 1) / threads, 1), cpu::kTaskInputs);
  share(kernels.gradient_tasks(gradient), threads,
        [&](int64_t begin, int64_t end) { kernels.gradient(gradient, begin, end); });
}

template <typename T>
void run_products(const char* type, uint64_t seed) {
  for (const ProductSize& size : kProducts) {
    for (const double rate : kRates) {
      const std::string name = std::string(type) + " product [" + std::to_string(size.rows) + ", " +
                               std::to_string(size.inputs) + ", " + std::to_string(size.outputs) + "] " +
                               std::to_string(rate);
      Outputs outputs(0xa5);
      run_product<T>(size, rate, seed, 1, outputs);
      Outputs others(0xff);
      run_product<T>(size, rate, seed, 3, others);
      if (const std::string found = outputs.difference(others); !found.empty()) {
        std::string text = name;
        fail(text.append(": ").append(found));
      }
      std::printf("%s: %016" PRIx64 "\n", name.c_str(), outputs.hash(0xcbf29ce484222325u));
      std::fflush(stdout);
      ++seed;
    }
  }
}

}  // namespace
