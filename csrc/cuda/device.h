// What is asked of the current device: once, since each question is a call of the driver.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <atomic>

namespace lif::cuda {

struct Device {
  int index = 0;
  int multiprocessors = 0;
  int shared_bytes = 0;  // the most that a block may have
};

constexpr int kMostDevices = 64;

namespace detail {

// What is known of a device; 0: not yet. Two threads may ask at once, and write the same.
struct KnownDevice {
  std::atomic<int> multiprocessors{0};
  std::atomic<int> shared_bytes{0};
};

inline std::array<KnownDevice, kMostDevices>& known_devices() {
  static std::array<KnownDevice, kMostDevices> devices;
  return devices;
}

inline cudaError_t ask_once(std::atomic<int>& known, cudaDeviceAttr which, int device, int& value) {
  value = known.load(std::memory_order_relaxed);
  if (value != 0) {
    return cudaSuccess;
  }
  const cudaError_t error = cudaDeviceGetAttribute(&value, which, device);
  if (error == cudaSuccess) {
    known.store(value, std::memory_order_relaxed);
  }
  return error;
}

}  // namespace detail

inline cudaError_t current_device(Device& device) {
  if (const auto error = cudaGetDevice(&device.index); error != cudaSuccess) {
    return error;
  }
  if (device.index >= kMostDevices) {
    return cudaErrorInvalidDevice;
  }
  detail::KnownDevice& known = detail::known_devices()[device.index];
  if (const auto error = detail::ask_once(known.multiprocessors, cudaDevAttrMultiProcessorCount, device.index,
                                          device.multiprocessors);
      error != cudaSuccess) {
    return error;
  }
  return detail::ask_once(known.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device.index,
                          device.shared_bytes);
}

}  // namespace lif::cuda
