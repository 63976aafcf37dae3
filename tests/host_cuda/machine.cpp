#include "machine.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "copies.h"
#include "cuda_pipeline.h"
#include "fiber.h"
#include "shared_memory.h"

HostIndex gridDim, blockDim, blockIdx, threadIdx;

namespace host_cuda {

Launch last_launch;
unsigned launches = 0;
cudaError_t last_error = cudaSuccess;
int shared_optin = kSharedOptin;
int multiprocessors = 0;
std::string fault;

void report(const std::string& what) {
  if (fault.empty()) {
    fault = what;
  }
}

std::string take_fault() { return std::exchange(fault, {}); }

std::string last_kernel_symbol() {
  const auto* kernel = reinterpret_cast<const void*>(last_launch.kernel);
  Dl_info info{};
  if (dladdr(kernel, &info) == 0 || info.dli_saddr != kernel) {
    return "unknown";
  }
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status), &std::free);
  return status == 0 ? text.get() : info.dli_sname;
}

namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned kMostThreads = 1024;

enum class State : uint8_t { fresh, ready, at_block, at_warp, left };

struct Thread {
  State state = State::left;
  Fiber* fiber = nullptr;
  Copies copies;
};

// The order in which the warps of a block run, or the lanes of a warp: from some place on, upward or
// downward. So of any two threads each is the first about half of the time, and not in step with a loop of
// the kernel's.
class Order {
 public:
  Order(unsigned size, unsigned block, unsigned phase, unsigned turn) : size_(size) {
    unsigned hash = block * 0x9e3779b1U ^ phase * 0x85ebca6bU ^ turn * 0xc2b2ae35U;
    hash = (hash ^ hash >> 15) * 0x2c1b3c6dU;
    hash ^= hash >> 13;
    down_ = hash % 2 != 0;
    first_ = hash / 2 % size;
  }

  unsigned operator[](unsigned i) const {
    const unsigned at = (first_ + i) % size_;
    return down_ ? size_ - 1 - at : at;
  }

 private:
  unsigned size_;
  unsigned first_;
  bool down_;
};

class Machine {
 public:
  bool run_block(const Kernel& kernel, void** args, unsigned block, unsigned threads, size_t shared_bytes) {
    kernel_ = &kernel;
    args_ = args;
    blockIdx.x = block;
    threads_ = threads;
    for (unsigned t = 0; t < threads; ++t) {
      thread_[t].state = State::fresh;
    }
    shared_memory.begin_block(shared_bytes);
    for (phase_ = 0; run_phase(); ++phase_) {
      shared_memory.next_phase();
    }
    const bool all_left = count(State::left, 0, threads) == threads;
    if (!all_left) {
      give_up();
    }
    SharedMemory::end_block();
    return all_left;
  }

  void wait(State barrier) {
    current_->state = barrier;
    current_->fiber->stop();
  }

  Copies& copies() { return current_->copies; }

 private:
  // Until all threads of the block wait or have left; false where none is to go on.
  bool run_phase() {
    const unsigned warps = (threads_ + kWarp - 1) / kWarp;
    const Order order(warps, blockIdx.x, phase_, 0);
    for (unsigned i = 0; i < warps; ++i) {
      const unsigned first = order[i] * kWarp;
      const unsigned last = first + kWarp < threads_ ? first + kWarp : threads_;
      for (unsigned turn = 0; run_turn(first, last, turn); ++turn) {
      }
    }
    return release(State::at_block, 0, threads_);
  }

  bool run_turn(unsigned first, unsigned last, unsigned turn) {
    const Order order(last - first, blockIdx.x, phase_, turn + first + 1);
    for (unsigned i = 0; i < last - first; ++i) {
      const unsigned t = first + order[i];
      if (thread_[t].state == State::fresh || thread_[t].state == State::ready) {
        shared_memory.run_as(t, turn);
        run(t);
      }
    }
    return release(State::at_warp, first, last);
  }

  void run(unsigned t) {
    current_ = &thread_[t];
    threadIdx.x = t;
    if (current_->state == State::fresh) {
      current_->fiber = take_fiber();
    }
    current_->fiber->resume();
    if (current_->state == State::left) {
      idle_.push_back(current_->fiber);
    }
  }

  // What a fiber runs: one thread's kernel.
  static void body();

  // The barrier opens where all wait at it that have not left.
  bool release(State barrier, unsigned first, unsigned last) {
    const unsigned waiting = count(barrier, first, last);
    if (waiting == 0 || waiting + count(State::left, first, last) != last - first) {
      return false;
    }
    for (unsigned t = first; t < last; ++t) {
      if (thread_[t].state == barrier) {
        thread_[t].state = State::ready;
      }
    }
    return true;
  }

  unsigned count(State state, unsigned first, unsigned last) const {
    unsigned sum = 0;
    for (unsigned t = first; t < last; ++t) {
      sum += thread_[t].state == state ? 1 : 0;
    }
    return sum;
  }

  // Some wait for the block and some for their warp, and none of them will come.
  void give_up() {
    report("block " + std::to_string(blockIdx.x) + ": a deadlock, " +
           std::to_string(count(State::at_block, 0, threads_)) + " threads wait at __syncthreads and " +
           std::to_string(count(State::at_warp, 0, threads_)) + " at __syncwarp");
    for (unsigned t = 0; t < threads_; ++t) {
      if (thread_[t].state != State::left) {
        thread_[t].fiber->abandon();
        thread_[t].copies.drop();
        idle_.push_back(thread_[t].fiber);
      }
    }
  }

  // The one used last: its stack is still in the cache, and threads that meet no barrier share one.
  Fiber* take_fiber() {
    if (idle_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>(&Machine::body));
      return fibers_.back().get();
    }
    Fiber* fiber = idle_.back();
    idle_.pop_back();
    return fiber;
  }

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  std::array<Thread, kMostThreads> thread_;
  Thread* current_ = nullptr;
  const Kernel* kernel_ = nullptr;
  void** args_ = nullptr;
  unsigned threads_ = 0;
  unsigned phase_ = 0;
};

Machine machine;

void Machine::body() {
  machine.kernel_->call(machine.kernel_->address, machine.args_);
  machine.current_->copies.finish();
  machine.current_->state = State::left;
}

std::map<void (*)(), int> shared_limit;

bool is_line(dim3 size) { return size.x > 0 && size.y == 1 && size.z == 1; }

}  // namespace

cudaError_t launch(const Kernel& kernel, dim3 grid, dim3 block, void** args, size_t shared_bytes) {
  last_launch = {kernel.address, grid.x, block.x, shared_bytes};
  ++launches;
  const auto limit = shared_limit.find(kernel.address);
  const int allowed = limit == shared_limit.end() ? kSharedDefault : limit->second;
  if (!is_line(grid) || !is_line(block) || block.x > kMostThreads ||
      shared_bytes > static_cast<size_t>(allowed)) {
    return last_error = cudaErrorInvalidValue;
  }
  gridDim.x = grid.x;
  blockDim.x = block.x;
  for (unsigned b = grid.x; b-- > 0;) {
    if (!machine.run_block(kernel, args, b, block.x, shared_bytes)) {
      break;
    }
  }
  return cudaSuccess;
}

cudaError_t allow_shared(void (*address)(), int bytes) {
  if (bytes < 0 || bytes > shared_optin) {
    return cudaErrorInvalidValue;
  }
  shared_limit[address] = bytes;
  return cudaSuccess;
}

}  // namespace host_cuda

// NOLINTBEGIN(bugprone-reserved-identifier): CUDA's own names.
void __syncthreads() { host_cuda::machine.wait(host_cuda::State::at_block); }
void __syncwarp() { host_cuda::machine.wait(host_cuda::State::at_warp); }

void __pipeline_memcpy_async(void* to_shared, const void* from_global, size_t size) {
  host_cuda::machine.copies().begin(to_shared, from_global, size);
}
void __pipeline_commit() { host_cuda::machine.copies().commit(); }
void __pipeline_wait_prior(size_t newest) { host_cuda::machine.copies().wait(newest); }
// NOLINTEND(bugprone-reserved-identifier)

cudaError_t cudaGetLastError() { return std::exchange(host_cuda::last_error, cudaSuccess); }

// A machine with other facts is another device, since launchers ask a device once.
cudaError_t cudaGetDevice(int* device) {
  static std::vector<std::pair<int, int>> devices;
  const std::pair<int, int> facts{host_cuda::multiprocessors, host_cuda::shared_optin};
  const auto found = std::find(devices.begin(), devices.end(), facts);
  *device = static_cast<int>(found - devices.begin());
  if (found == devices.end()) {
    devices.push_back(facts);
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = which == cudaDevAttrMultiProcessorCount ? host_cuda::multiprocessors : host_cuda::shared_optin;
  return cudaSuccess;
}
