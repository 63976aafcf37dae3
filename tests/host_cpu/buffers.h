// Memory for the drivers of the CPU kernels: pieces of exactly the right size, drawn inputs that nobody
// writes to, and outputs of which it is seen what was written.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "neuron/params.h"

namespace {

using namespace lif;

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "FAILED: %s\n", message.c_str());
  std::exit(1);
}

// Memory.

enum class Placement { heap, end, begin };
Placement placement = Placement::heap;

// So many bytes and not one more; none at all where there are none, as in an empty tensor.
class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) {
      return;
    }
    if (placement == Placement::heap) {
      data_ = std::malloc(bytes);
      if (data_ == nullptr) {
        fail("out of memory");
      }
      return;
    }
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t whole = (bytes + page - 1) / page * page;
    mapped_ = whole + page;
    map_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map_ == MAP_FAILED) {
      fail("out of memory");
    }
    char* base = static_cast<char*>(map_);
    const bool at_end = placement == Placement::end;
    data_ = at_end ? base + whole - bytes : base + page;
    if (mprotect(at_end ? base + whole : base, page, PROT_NONE) != 0) {
      fail("mprotect");
    }
  }

  Memory(Memory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(other.bytes_),
        map_(std::exchange(other.map_, nullptr)),
        mapped_(other.mapped_) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  Memory& operator=(Memory&&) = delete;

  ~Memory() {
    if (map_ != nullptr) {
      munmap(map_, mapped_);
    } else {
      std::free(data_);
    }
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

  // From here on nobody may write here.
  void seal() const {
    if (map_ != nullptr && data_ != nullptr) {
      const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
      char* first = static_cast<char*>(map_) + (placement == Placement::end ? 0 : page);
      if (mprotect(first, mapped_ - page, PROT_READ) != 0) {
        fail("mprotect");
      }
    }
  }

 private:
  void* data_ = nullptr;
  size_t bytes_;
  void* map_ = nullptr;
  size_t mapped_ = 0;
};

// Numbers.

// splitmix64: the same numbers with every compiler and standard library.
class Draw {
 public:
  explicit Draw(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}

  uint64_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
  bool in(int64_t hits, int64_t of) { return below(of) < hits; }
  double between(double low, double high) {
    return low + (high - low) * (static_cast<double>(bits() >> 11) * 0x1p-53);
  }
  template <typename E, size_t N>
  E one_of(const E (&values)[N]) {
    return values[below(N)];
  }

 private:
  uint64_t state_;
};

template <typename E>
E number(double value) {
  return narrow<E>(static_cast<StateOf<E>>(value));
}

// The bits of an element; all NaN are one, for which of them comes out may depend on the vector's width.
template <typename E>
uint64_t bits_at(const void* data, int64_t i) {
  E value;
  std::memcpy(&value, static_cast<const char*>(data) + static_cast<size_t>(i) * sizeof(E), sizeof(E));
  if constexpr (!std::is_integral_v<E>) {
    if (std::isnan(widen(value))) {
      return ~uint64_t{0};
    }
  }
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(E));
  return bits;
}

// Tensors.

enum class Layout { time_first, batch_first, padded, constant, uniform, single };

// Where the elements of a tensor with a time axis lie, and how many there are up to the last one.
struct Place {
  int64_t outer_stride = 0;
  int64_t time_stride = 0;
  bool uniform = false;
  int64_t row = 0;  // elements from one row to the next, all but `inner` of them foreign; 0: no gaps
  int64_t elements = 0;
};

Place place_of(Layout layout, const Extent& extent) {
  Place place;
  switch (layout) {
    case Layout::time_first:
      place = {extent.inner, extent.outer * extent.inner};
      break;
    case Layout::batch_first:
      place = {extent.steps * extent.inner, extent.inner};
      break;
    case Layout::padded:  // a slice of the features
      place.row = extent.inner + 3;
      place.outer_stride = place.row;
      place.time_stride = extent.outer * place.row;
      break;
    case Layout::constant:
      place = {extent.inner, 0};
      break;
    case Layout::uniform:  // expanded over the inner axes
      place = {1, extent.outer, true};
      break;
    case Layout::single:  // expanded over all
      place = {0, 0, true};
      break;
  }
  const bool timed = layout != Layout::constant && layout != Layout::single;
  if (extent.steps > 0 || !timed) {
    place.elements = (extent.outer - 1) * place.outer_stride +
                     (timed ? (extent.steps - 1) * place.time_stride : 0) +
                     (place.uniform ? 1 : extent.inner);
  }
  return place;
}

// Drawn tensors, which nobody writes to.
class Inputs {
 public:
  explicit Inputs(uint64_t seed) : draw_(seed) {}

  template <typename E>
  const E* values(int64_t n, double low, double high, bool wild = false) {
    memory_.emplace_back(static_cast<size_t>(n) * sizeof(E));
    E* data = static_cast<E*>(memory_.back().data());
    for (int64_t i = 0; i < n; ++i) {
      data[i] = number<E>(draw_.between(low, high));
    }
    if (wild) {
      constexpr double kInfinity = std::numeric_limits<double>::infinity();
      constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
      for (int64_t i = draw_.below(7); i < n; i += 1 + draw_.below(97)) {
        data[i] = number<E>(draw_.one_of({kInfinity, -kInfinity, kNan, 6e4, -1e9}));
      }
    }
    memory_.back().seal();
    return data;
  }

  template <typename E>
  Series<const E> series(Layout layout, const Extent& extent, double low, double high, bool wild = false) {
    const Place place = place_of(layout, extent);
    return {values<E>(place.elements, low, high, wild), place.outer_stride, place.time_stride, place.uniform};
  }

 private:
  Draw draw_;
  std::vector<Memory> memory_;
};

// Tensors to write, filled with a byte that must be gone afterwards, or still be there in the gaps.
class Outputs {
 public:
  explicit Outputs(int poison) : poison_(poison) {}

  template <typename E>
  E* values(int64_t n, const char* name, int64_t row = 0, int64_t inner = 0) {
    outputs_.push_back(
        {Memory(static_cast<size_t>(n) * sizeof(E)), name, n, sizeof(E), row, inner, &bits_at<E>});
    const Memory& memory = outputs_.back().memory;
    if (n > 0) {
      std::memset(memory.data(), poison_, memory.bytes());
    }
    return static_cast<E*>(memory.data());
  }

  template <typename E>
  Series<E> series(Layout layout, const Extent& extent, const char* name) {
    const Place place = place_of(layout, extent);
    return {values<E>(place.elements, name, place.row, extent.inner), place.outer_stride, place.time_stride,
            false};
  }

  // The first difference, or nothing.
  std::string difference(const Outputs& other) const {
    for (size_t k = 0; k < outputs_.size(); ++k) {
      const Output& one = outputs_[k];
      const Output& two = other.outputs_[k];
      for (int64_t i = 0; i < one.elements; ++i) {
        if (one.is_gap(i)) {
          if (!one.holds(i, poison_) || !two.holds(i, other.poison_)) {
            return one.at(i) + " is not the kernel's and was written";
          }
        } else if (one.bits(one.memory.data(), i) != two.bits(two.memory.data(), i)) {
          const bool left = one.holds(i, poison_) && two.holds(i, other.poison_);
          return one.at(i) + (left ? " was not written" : " depends on the number of threads");
        }
      }
    }
    return "";
  }

  // FNV-1a over the elements.
  uint64_t hash(uint64_t start) const {
    for (const Output& output : outputs_) {
      for (int64_t i = 0; i < output.elements; ++i) {
        if (!output.is_gap(i)) {
          start = (start ^ output.bits(output.memory.data(), i)) * 0x100000001b3u;
        }
      }
    }
    return start;
  }

 private:
  struct Output {
    Memory memory;
    const char* name;
    int64_t elements;
    size_t size;
    int64_t row;
    int64_t inner;
    uint64_t (*bits)(const void*, int64_t);

    std::string at(int64_t i) const { return std::string(name) + "[" + std::to_string(i) + "]"; }
    bool is_gap(int64_t i) const { return row > 0 && i % row >= inner; }
    bool holds(int64_t i, int byte) const {
      const auto* at = static_cast<const unsigned char*>(memory.data()) + static_cast<size_t>(i) * size;
      return std::all_of(at, at + size, [byte](unsigned char found) { return found == byte; });
    }
  };

  int poison_;
  std::vector<Output> outputs_;
};

}  // namespace
