// CUDA's copies that run while the thread goes on, on the host (copies.h).
#pragma once

#include <cstddef>

// NOLINTBEGIN(bugprone-reserved-identifier): CUDA's own names.
void __pipeline_memcpy_async(void* to_shared, const void* from_global, size_t size);
void __pipeline_commit();
void __pipeline_wait_prior(size_t newest);
// NOLINTEND(bugprone-reserved-identifier)
