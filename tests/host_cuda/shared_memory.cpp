#include "shared_memory.h"

#include <cstring>
#include <string>

#include "machine.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define HOST_CUDA_FORBID(address, size) __asan_poison_memory_region(address, size)
#define HOST_CUDA_ALLOW(address, size) __asan_unpoison_memory_region(address, size)
#else
#define HOST_CUDA_FORBID(address, size) static_cast<void>(0)
#define HOST_CUDA_ALLOW(address, size) static_cast<void>(0)
#endif

namespace {

constexpr size_t kGuard = 4096;
constexpr size_t kAll = host_cuda::kSharedOptin + kGuard;
constexpr unsigned char kPoison = 0xff;

}  // namespace

namespace lif::cuda {
// What the kernels declare as `extern __shared__`.
alignas(16) unsigned char shared[kAll];
}  // namespace lif::cuda

namespace host_cuda {

using lif::cuda::shared;

SharedMemory shared_memory;
SharedMemory::Byte SharedMemory::bytes_[kAll];

void SharedMemory::begin_block(size_t bytes) {
  size_ = bytes;
  first_phase_ = ++phase_;
  std::memset(shared, kPoison, bytes);
  HOST_CUDA_FORBID(shared + bytes, kAll - bytes);
}

void SharedMemory::end_block() { HOST_CUDA_ALLOW(shared, kAll); }

// Whether no barrier lies between the access and what the running thread does now.
bool SharedMemory::unordered(const Access& access) const {
  return access.phase == phase_ &&
         (access.several_warps || !same_warp(access) ||
          (access.turn == turn_ && (access.several_lanes || access.thread != thread_)));
}

void SharedMemory::complain(const char* verb, size_t offset, const Access& other, const char* what) const {
  report("block " + std::to_string(blockIdx.x) + ": thread " + std::to_string(thread_) + " " + verb +
         " byte " + std::to_string(offset) + " of shared memory, which thread " +
         std::to_string(other.thread) + " " + what);
}

bool SharedMemory::is_inside(size_t offset, size_t size, const char* verb) const {
  if (offset > size_ || size > size_ - offset) {  // before the memory, an offset is huge
    report("block " + std::to_string(blockIdx.x) + ": thread " + std::to_string(thread_) + " " + verb +
           " outside the block's shared memory");
    return false;
  }
  return true;
}

void SharedMemory::read(size_t offset, size_t size) {
  if (!is_inside(offset, size, "reads")) {
    return;
  }
  for (size_t i = offset; i < offset + size; ++i) {
    auto& [written, read] = bytes_[i];
    if (in_flight(written)) {
      complain("reads", i, written, "copies to, without having waited for it");
    } else if (unordered(written)) {
      complain("reads", i, written, "wrote with no barrier between");
    }
    // Several threads may read: of one warp the newest turn counts, and with two warps any writer is wrong.
    if (read.phase != phase_ || (same_warp(read) && read.turn < turn_ && !read.several_warps)) {
      read = now();
    } else if (!same_warp(read)) {
      read.several_warps = 1;
    } else if (read.thread != thread_) {
      read.several_lanes = 1;
    }
  }
}

void SharedMemory::write(size_t offset, size_t size) {
  if (!is_inside(offset, size, "writes")) {
    return;
  }
  for (size_t i = offset; i < offset + size; ++i) {
    auto& [written, read] = bytes_[i];
    if (in_flight(written)) {
      complain("writes", i, written, "copies to, without having waited for it");
    } else if (unordered(written)) {
      complain("writes", i, written, "wrote with no barrier between");
    } else if (unordered(read)) {
      complain("writes", i, read, "read with no barrier between");
    }
    written = now();
  }
}

bool SharedMemory::begin_copy(void* to, size_t size) {
  const size_t offset = static_cast<unsigned char*>(to) - shared;
  if (!is_inside(offset, size, "copies")) {
    return false;
  }
  write(offset, size);
  for (size_t i = offset; i < offset + size; ++i) {
    bytes_[i].written.in_flight = 1;
  }
  std::memset(to, kPoison, size);
  return true;
}

void SharedMemory::land_copy(void* to, const void* from, size_t size) {
  const size_t offset = static_cast<unsigned char*>(to) - shared;
  for (size_t i = offset; i < offset + size; ++i) {
    bytes_[i].written = now();
  }
  std::memcpy(to, from, size);
}

}  // namespace host_cuda

// What the compiler calls for -fsanitize=thread.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-non-const-parameter)
namespace {

using Touch = void (host_cuda::SharedMemory::*)(size_t, size_t);

template <Touch kTouch>
inline void touch(const void* at, size_t size) {
  const size_t offset = reinterpret_cast<uintptr_t>(at) - reinterpret_cast<uintptr_t>(lif::cuda::shared);
  if (__builtin_expect(offset < kAll, 0)) {
    (host_cuda::shared_memory.*kTouch)(offset, size);
  }
}

constexpr Touch kRead = &host_cuda::SharedMemory::read;
constexpr Touch kWrite = &host_cuda::SharedMemory::write;

}  // namespace

#define HOST_CUDA_ACCESSES(size)                                               \
  void __tsan_read##size(const void* at) { touch<kRead>(at, size); }           \
  void __tsan_write##size(const void* at) { touch<kWrite>(at, size); }         \
  void __tsan_unaligned_read##size(const void* at) { touch<kRead>(at, size); } \
  void __tsan_unaligned_write##size(const void* at) { touch<kWrite>(at, size); }

// A launcher may ask once for what it then remembers.
#define HOST_CUDA_ATOMICS(bits)                                                              \
  uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t* at, int) {        \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                            \
  }                                                                                          \
  void __tsan_atomic##bits##_store(volatile uint##bits##_t* at, uint##bits##_t value, int) { \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                           \
  }

extern "C" {
HOST_CUDA_ACCESSES(1)
HOST_CUDA_ACCESSES(2)
HOST_CUDA_ACCESSES(4)
HOST_CUDA_ACCESSES(8)
HOST_CUDA_ACCESSES(16)
void __tsan_read_range(const void* at, size_t size) { touch<kRead>(at, size); }
void __tsan_write_range(const void* at, size_t size) { touch<kWrite>(at, size); }
HOST_CUDA_ATOMICS(8)
HOST_CUDA_ATOMICS(32)
HOST_CUDA_ATOMICS(64)
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
// NOLINTEND(bugprone-reserved-identifier,readability-non-const-parameter)
