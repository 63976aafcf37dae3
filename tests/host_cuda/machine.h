// The machine behind cuda_runtime.h, as the tests see it.
//
// Blocks run one after another, and so do the threads of a block: each is a fiber (fiber.h) that runs until
// it meets a barrier or leaves. In which order is drawn anew after each barrier, but the same in each run, so
// that numbers which hang on the order come out wrong. What the threads do to shared memory between barriers
// is checked whatever the order was (shared_memory.h).
//
// Not here: more than one block at a time, so that what blocks do to each other is not seen; races in global
// memory; the masks of __syncwarp and everything else that lanes do together.
#pragma once

#include <cstddef>
#include <string>

#include "cuda_runtime.h"

namespace host_cuda {

// Of an H100 or H200: what a block may ask for, and what it gets without asking.
constexpr int kSharedOptin = 227 * 1024;
constexpr int kSharedDefault = 48 * 1024;

// What the last launch was.
struct Launch {
  void (*kernel)() = nullptr;
  unsigned blocks = 0;
  unsigned threads = 0;
  size_t shared_bytes = 0;
};
extern Launch last_launch;
extern unsigned launches;  // how many there have been
extern cudaError_t last_error;

// The device. A launcher that remembers what it asked does not see these change.
extern int shared_optin;     // at the most kSharedOptin
extern int multiprocessors;  // 0: no call has few neurons for them

// The first thing that kernels did wrong since the last call of take_fault(); empty where all is well.
extern std::string fault;
void report(const std::string& what);
std::string take_fault();

// The last launched kernel with its template and function arguments. It must be visible to the dynamic
// linker: neither in an unnamed namespace nor compiled with -fvisibility=hidden.
std::string last_kernel_symbol();

}  // namespace host_cuda
