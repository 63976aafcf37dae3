// The shared memory of the block that runs, and who has touched it since when.
//
// Two accesses to a byte, one of them a write, must have a barrier between them: __syncthreads(), or
// __syncwarp() where both threads are of one warp. Whoever breaks this is reported, in whatever order the
// threads ran and whatever value was written. So is an access to a byte that a copy is on its way to, or one
// outside the memory that the block asked for. A byte that nobody wrote is not reported, as loading what is
// then thrown away does no harm: four or eight of them are a NaN.
//
// The accesses are seen because kernels are compiled with -fsanitize=thread, for which the compiler calls a
// function at each load and store. Its library, which knows nothing of barriers, is not linked:
// shared_memory.cpp defines the functions. Copies by std::memcpy of more than a few bytes are not seen. The
// address sanitizer excludes the other, so under it only copies in flight and the block's end are checked.
#pragma once

#include <cstddef>
#include <cstdint>

namespace host_cuda {

class SharedMemory {
 public:
  void begin_block(size_t bytes);
  static void end_block();

  // All threads have met; the turns of the warps begin again.
  void next_phase() { ++phase_; }

  // The accesses from here on are of this thread, which has met its warp `turn` times in this phase.
  void run_as(unsigned thread, unsigned turn) {
    thread_ = thread;
    turn_ = turn;
  }

  // The thread begins a copy to there; false where that may not be. Its bytes are nobody's until it lands.
  bool begin_copy(void* to, size_t size);
  void land_copy(void* to, const void* from, size_t size);

  void read(size_t offset, size_t size);
  void write(size_t offset, size_t size);

 private:
  // The newest of some accesses to a byte, and whether those of its phase and turn were several threads'.
  struct Access {
    uint64_t phase : 32;
    uint64_t turn : 19;
    uint64_t thread : 10;
    uint64_t several_lanes : 1;
    uint64_t several_warps : 1;
    uint64_t in_flight : 1;
  };

  struct Byte {
    Access written;
    Access read;
  };

  Access now() const { return {phase_, turn_, thread_, 0, 0, 0}; }
  bool same_warp(const Access& access) const { return access.thread / 32 == thread_ / 32; }
  bool in_flight(const Access& access) const { return access.in_flight && access.phase >= first_phase_; }
  bool unordered(const Access& access) const;
  bool is_inside(size_t offset, size_t size, const char* verb) const;
  void complain(const char* verb, size_t offset, const Access& other, const char* what) const;

  static Byte bytes_[];
  size_t size_ = 0;
  // Phases are counted on over blocks and launches, so that a new block need not wipe the records.
  uint32_t phase_ = 0;
  uint32_t first_phase_ = 0;
  unsigned thread_ = 0;
  unsigned turn_ = 0;
};

extern SharedMemory shared_memory;

}  // namespace host_cuda
