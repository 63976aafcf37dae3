// Calling an operator below autograd: through torch's dispatcher, or, where nobody else is to hear of it,
// past it to the backend's own function (direct.h). For node.cpp, and like it bound to the torch it was built
// with.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/utils.h>

#include <optional>
#include <string>
#include <vector>

#include "ops/direct.h"

namespace lif::autograd {

using namespace ops;

using at::Tensor;
using Ints = std::vector<int64_t>;
using Floats = std::vector<double>;

template <typename T>
c10::List<T> list_of(const std::vector<T>& values) {
  c10::List<T> list;
  list.reserve(values.size());
  for (const T& value : values) {
    list.push_back(value);
  }
  return list;
}

// The backends' own functions, as far as their libraries are loaded.
struct Backends {
  const Direct* cpu = nullptr;
  const Direct* cuda = nullptr;
};

inline Backends& backends() {
  static Backends loaded;
  return loaded;
}

// An operator, for the dispatcher and without it.
struct Operation {
  c10::OperatorHandle handle;
  Direct::Operator Direct::* direct;

  Operation(const char* name, Direct::Operator Direct::* of)
      : handle(c10::Dispatcher::singleton().findSchemaOrThrow(name, "")), direct(of) {}
};

// The backend that the dispatcher would end at, below autograd, if nobody else is to hear of the operator: no
// mode, transform, profiler or subclass. Null where it is for the dispatcher to say.
inline const Direct* direct_of(const Tensor& x, at::TensorList given) {
  if (at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION).has_value()) {
    return nullptr;
  }
  c10::DispatchKeySet keys = x.key_set();
  for (const Tensor& tensor : given) {
    keys = keys | tensor.key_set();
  }
  // The operators have no rules for these, which pass them on.
  constexpr c10::DispatchKeySet kPassedOn =
      c10::autocast_dispatch_keyset.add(c10::DispatchKey::BackendSelect);
  const c10::impl::LocalDispatchKeySet local = c10::impl::tls_local_dispatch_key_set();
  keys = ((keys | local.included_) - local.excluded_) - kPassedOn;
  switch (keys.highestPriorityTypeId()) {
    case c10::DispatchKey::CPU:
      return backends().cpu;
    case c10::DispatchKey::CUDA:
      return backends().cuda;
    default:
      return nullptr;
  }
}

inline torch::stable::Tensor stable(const Tensor& tensor) {
  return torch::stable::Tensor(torch::aot_inductor::new_tensor_handle(Tensor(tensor)));
}

// An operator below autograd, whose work is done here.
inline std::vector<Tensor> run(const Operation& op, const Tensor& x, at::TensorList given, const Ints& ints,
                               int64_t steps, int64_t every, const Floats& floats) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const at::NoGradGuard no_grad;
  const Direct* direct = direct_of(x, given);
  if (direct == nullptr) {
    torch::jit::Stack stack{x, c10::List<Tensor>(given), list_of(ints), steps, every, list_of(floats)};
    op.handle.callBoxed(stack);
    return stack[0].toTensorVector();
  }
  std::vector<torch::stable::Tensor> tensors;
  tensors.reserve(given.size());
  for (const Tensor& tensor : given) {
    tensors.push_back(stable(tensor));
  }
  std::vector<Tensor> results;
  for (const torch::stable::Tensor& tensor :
       (direct->*op.direct)(stable(x), tensors, ints, steps, every, floats)) {
    results.push_back(*torch::aot_inductor::tensor_handle_to_tensor_pointer(tensor.get()));
  }
  return results;
}

// Take the functions of a backend from its library, which is loaded; without one, leave all to the
// dispatcher.
inline void call_directly(const std::string& device, const std::optional<std::string>& library) {
  TORCH_CHECK_VALUE(device == "cpu" || device == "cuda", "device must be cpu or cuda, got ", device);
  const Direct* direct = nullptr;
  if (library) {
    void* const loaded = dlopen(library->c_str(), RTLD_LAZY | RTLD_NOLOAD);
    TORCH_CHECK(loaded != nullptr, *library, " is not loaded: load it first, with torch.ops.load_library");
    direct = static_cast<const Direct*>(dlsym(loaded, kDirect));
    TORCH_CHECK(direct != nullptr, *library, " has no ", kDirect,
                ": give a library of this build's operators");
  }
  (device == "cuda" ? backends().cuda : backends().cpu) = direct;
}

}  // namespace lif::autograd
