#include "fiber.h"

#include <sys/mman.h>

#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(HOST_CUDA_OWN_SWITCH)
// Saves what a called function must preserve, and returns on the other stack.
extern "C" __attribute__((visibility("hidden"))) void host_cuda_switch(void** from, void* to);
asm(R"(
  .text
  .hidden host_cuda_switch
  .globl host_cuda_switch
  .type host_cuda_switch, @function
host_cuda_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size host_cuda_switch, .-host_cuda_switch
)");
#endif

namespace host_cuda {
namespace {

// Room for a kernel that is not optimised, and for a sanitizer's report. What is not touched is not there.
constexpr size_t kStackBytes = size_t{512} * 1024;
// Without permissions, below the stack: a kernel that needs more faults.
constexpr size_t kGuardBytes = size_t{64} * 1024;

// The fiber that a new stack belongs to: a context begins without arguments.
Fiber* starting = nullptr;

void switch_to(Context& from, Context& to) {
#if defined(HOST_CUDA_OWN_SWITCH)
  host_cuda_switch(&from, to);
#else
  swapcontext(&from, &to);
#endif
}

}  // namespace

Fiber::Fiber(void (*body)()) : body_(body) {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) {
    throw std::bad_alloc();
  }
  memory_ = static_cast<unsigned char*>(memory);
  prepare();
}

Fiber::~Fiber() { munmap(memory_, kGuardBytes + kStackBytes); }

void Fiber::prepare() {
#if defined(HOST_CUDA_OWN_SWITCH)
  // As if enter() had been called by nobody, and had been about to begin when it was switched away from:
  // six registers, its address, and where it would return to.
  auto** top = reinterpret_cast<void**>(memory_ + kGuardBytes + kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&Fiber::enter);
  for (int i = 0; i < 6; ++i) {
    *--top = nullptr;
  }
  here_ = static_cast<void*>(top);
#else
  getcontext(&here_);
  here_.uc_stack.ss_sp = memory_ + kGuardBytes;
  here_.uc_stack.ss_size = kStackBytes;
  here_.uc_link = nullptr;
  makecontext(&here_, &Fiber::enter, 0);
#endif
}

void Fiber::enter() {
  Fiber* self = starting;
  self->arrived();
  while (true) {
    self->body_();
    self->stop();
  }
}

void Fiber::resume() {
  starting = this;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, memory_ + kGuardBytes, kStackBytes);
#endif
  switch_to(caller_, here_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

void Fiber::stop() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fake_stack_, caller_stack_, caller_bytes_);
#endif
  switch_to(here_, caller_);
  arrived();
}

void Fiber::arrived() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack_, &caller_stack_, &caller_bytes_);
#endif
}

void Fiber::abandon() {
#if defined(__SANITIZE_ADDRESS__)
  // The variables of the functions that never return are still fenced in.
  __asan_unpoison_memory_region(memory_ + kGuardBytes, kStackBytes);
#endif
  prepare();
}

}  // namespace host_cuda
