// A function with a stack of its own, which stops in the middle and goes on later: one CUDA thread.
#pragma once

#include <cstddef>

// swapcontext() makes two system calls, and a launch switches some 100,000 times: where a switch is written
// by hand, it costs nanoseconds.
#if defined(__x86_64__) && defined(__LP64__)
#define HOST_CUDA_OWN_SWITCH
#else
#include <ucontext.h>
#endif

namespace host_cuda {

#if defined(HOST_CUDA_OWN_SWITCH)
using Context = void*;  // the stack pointer: what else belongs to a context lies on its stack
#else
using Context = ucontext_t;
#endif

class Fiber {
 public:
  explicit Fiber(void (*body)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber(Fiber&&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  Fiber& operator=(Fiber&&) = delete;

  // Run the body from where it stopped until it stops again or returns. After a return, the next call
  // begins the body anew.
  void resume();

  // Called by the body: back to who called resume().
  void stop();

  // Forget a body that stands in the middle; it must own nothing.
  void abandon();

 private:
  static void enter();
  void prepare();
  void arrived();

  void (*body_)();
  unsigned char* memory_ = nullptr;
  Context here_{};
  Context caller_{};
  // What the address sanitizer knows of the two stacks.
  void* fake_stack_ = nullptr;
  const void* caller_stack_ = nullptr;
  size_t caller_bytes_ = 0;
};

}  // namespace host_cuda
