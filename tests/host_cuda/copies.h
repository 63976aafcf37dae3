// The copies that a thread has begun and not waited for.
//
// Hardware may let a copy land at any time between the two. Here it lands as late as it may, so that nothing
// can rest on its having landed early; that nobody touches its bytes before is SharedMemory's to check.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "machine.h"
#include "shared_memory.h"

namespace host_cuda {

class Copies {
 public:
  void begin(void* to, const void* from, size_t size) {
    const auto misaligned = [&](const void* at) { return reinterpret_cast<uintptr_t>(at) % size != 0; };
    if (size != 4 && size != 8 && size != 16) {
      report("a copy of " + std::to_string(size) + " bytes: it may be 4, 8 or 16");
    } else if (misaligned(to) || misaligned(from)) {
      report("a copy of " + std::to_string(size) + " bytes is not aligned to them");
    } else if (shared_memory.begin_copy(to, size)) {
      in_flight_.push_back({to, from, size, group_});
    }
  }

  void commit() { ++group_; }

  // All groups but the newest land, of those committed.
  void wait(size_t newest) {
    while (landed_ < in_flight_.size() && in_flight_[landed_].group + newest < group_) {
      land_next();
    }
    forget_landed();
  }

  // The thread leaves: what it has begun lands nevertheless.
  void finish() {
    while (landed_ < in_flight_.size()) {
      land_next();
    }
    forget_landed();
    group_ = 0;
  }

  void drop() {
    in_flight_.clear();
    landed_ = 0;
    group_ = 0;
  }

 private:
  struct Copy {
    void* to;
    const void* from;
    size_t size;
    size_t group;
  };

  void land_next() {
    const Copy& copy = in_flight_[landed_++];
    shared_memory.land_copy(copy.to, copy.from, copy.size);
  }

  void forget_landed() {
    in_flight_.erase(in_flight_.begin(), in_flight_.begin() + static_cast<std::ptrdiff_t>(landed_));
    landed_ = 0;
  }

  std::vector<Copy> in_flight_;
  size_t landed_ = 0;
  size_t group_ = 0;  // that the next copy belongs to
};

}  // namespace host_cuda
