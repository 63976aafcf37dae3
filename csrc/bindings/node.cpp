// The operators under autograd, without the interpreter: what FusedLIF in lif_cuda/_autograd.py does.
//
// The time of a small layer is that of its call. On [4, 1, 8] a recorded call takes 49 us through the Python
// function and 8 us through this one, as long as a Python function that does nothing; with backward it takes
// 154 and 74 us, and relu 46.
//
// A library of its own: it alone needs more of torch than the stable interface, and so the very torch that it
// was built with. Beside another, under torch.compile, which traces Python, and under torch.func, the Python
// functions work. The tests run both.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/python_variable.h>

#include <string>
#include <utility>
#include <vector>

#include "bindings/interface.h"

namespace py = pybind11;

namespace lif::bindings {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What is refused, in the words of lif_cuda/_autograd.py.
struct Refusals {
  std::string second_derivative;
  std::string second_pass_of_bits;
};

Refusals& refusals() {
  static Refusals texts;
  return texts;
}

// A call besides its tensors. Lists are torch's own, which a call of an operator shares and does not copy.
struct Call {
  c10::List<int64_t> ints;          // for a call that is not recorded
  c10::List<int64_t> ints_to_keep;  // for one that is: asks for what backward needs, too
  c10::List<double> floats;
  c10::List<int64_t> slots;     // of the tensors that are given
  c10::List<int64_t> incoming;  // of the gradients of the results; kNone: it has none
  int64_t steps;
  int64_t every;
  int64_t first_spike;  // the result of that name, or kNone
  bool bits;
};
constexpr int64_t kNone = -1;

// What of it backward has to know, in the one value that the context keeps: compiled autograd reads it.
struct Kept {
  enum : size_t { ints, floats, slots, incoming, steps, every, bits };
};

// Tensors that autograd does not see among the arguments of a function.
struct Unseen {
  variable_list tensors;
};

c10::OperatorHandle operator_of(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
}

// An operator below autograd, whose work is done here.
variable_list run(const c10::OperatorHandle& op, const Tensor& x, c10::List<Tensor> given,
                  c10::List<int64_t> ints, int64_t steps, int64_t every, c10::List<double> floats) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const at::NoGradGuard no_grad;
  torch::jit::Stack stack;
  stack.reserve(6);
  stack.emplace_back(x);
  stack.emplace_back(std::move(given));
  stack.emplace_back(std::move(ints));
  stack.emplace_back(steps);
  stack.emplace_back(every);
  stack.emplace_back(std::move(floats));
  op.callBoxed(stack);
  return stack[0].toTensorVector();
}

variable_list forward(const Call& call, const Tensor& x, at::TensorList given, const c10::List<int64_t>& ints,
                      int64_t every) {
  static const c10::OperatorHandle op = operator_of("lif_cuda::lif_forward");
  return run(op, x, c10::List<Tensor>(given), ints, call.steps, every, call.floats);
}

// A gradient of an output as the operator reads it: as it lies, where its axes allow that.
Tensor incoming_rows(const Tensor& grad, int64_t slot, int64_t time_dim, bool time_first) {
  const size_t output = static_cast<size_t>(slot) - Slot::grad;
  if (output >= kOfState) {
    return grad.contiguous();
  }
  const bool timed = output == kOfSpikes || output == kOfTrace || output == kOfTraceBefore;
  const Tensor rows = timed && time_first ? grad.movedim(0, time_dim) : grad;
  const auto sizes = rows.sizes();
  const auto strides = rows.strides();
  const auto outer = static_cast<size_t>(time_dim);
  const int64_t inner_stride = joint_stride(sizes, strides, outer + timed, sizes.size());
  const bool as_it_lies =
      (inner_stride == 0 || inner_stride == 1) && joint_stride(sizes, strides, 0, outer) >= 0;
  return as_it_lies ? rows : rows.contiguous();
}

int64_t wanted_bit(int64_t slot) {
  const auto at = static_cast<size_t>(slot);
  if (at < Slot::state + kSmoothStates) {
    return kGradState << (at - Slot::state);
  }
  const bool parameter = at >= Slot::parameter && at < Slot::table;
  return parameter ? kGradParameter << (at - Slot::parameter) : 0;
}

// The identity on gradients, whose own gradient, in whatever they depend on, is refused: it would come out as
// a silent zero.
struct NoSecondDerivative : torch::autograd::Function<NoSecondDerivative> {
  static variable_list forward(AutogradContext*, const Unseen& gradients, const at::TensorList&) {
    return gradients.tensors;
  }
  static variable_list backward(AutogradContext*, const variable_list&) {
    TORCH_CHECK_NOT_IMPLEMENTED(false, refusals().second_derivative);
  }
};

}  // namespace

// By its name, which anomaly detection gives and `grad_fn` shows.
struct FusedLIF : torch::autograd::Function<FusedLIF> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* ctx, const Call& call, const Tensor& x,
                               const at::TensorList& given) {
    variable_list results = bindings::forward(call, x, given, call.ints_to_keep, call.every);
    Tensor kept;
    if (call.every > 0 || call.bits) {
      kept = std::move(results.back());
      results.pop_back();
    }
    variable_list saved{x, kept, call.first_spike == kNone ? Tensor() : results[call.first_spike]};
    if (call.bits) {
      saved[0] = at::empty({}, x.options()).expand(x.sizes());  // a shape without its memory
    }
    saved.insert(saved.end(), given.begin(), given.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["call"] = c10::ivalue::Tuple::create(std::vector<c10::IValue>{
        call.ints, call.floats, call.slots, call.incoming, call.steps, call.every, call.bits});
    ctx->set_materialize_grads(false);
    variable_list fixed;
    for (size_t i = 0; i < results.size(); ++i) {
      if (call.incoming.get(i) == kNone) {
        fixed.push_back(results[i]);
      }
    }
    if (!fixed.empty()) {
      ctx->mark_non_differentiable(fixed);
    }
    return results;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto call = ctx->saved_data["call"].toTuple();
    const auto of_call = call->elements().asArrayRef();
    const c10::List<int64_t> ints_of_forward = of_call[Kept::ints].toIntList();
    const c10::List<int64_t> slots = of_call[Kept::slots].toIntList();
    const c10::List<int64_t> incoming = of_call[Kept::incoming].toIntList();
    const bool bits = of_call[Kept::bits].toBool();
    const int64_t time_dim = ints_of_forward.get(Int::time_dim);
    const bool time_first = ints_of_forward.get(Int::time_first) != 0;
    const bool recorded = at::GradMode::is_enabled();
    // What would refuse a second derivative hangs on x, and x was not kept.
    TORCH_CHECK_NOT_IMPLEMENTED(!(recorded && bits), refusals().second_pass_of_bits);

    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &kept = saved[1], &first = saved[2];
    c10::List<Tensor> given;
    given.reserve(saved.size() + grads.size());
    int64_t present = 0;
    const auto give = [&](int64_t slot, const Tensor& tensor) {
      present |= int64_t{1} << slot;
      given.push_back(tensor);
    };
    const bool need_x = ctx->needs_input_grad(0);
    int64_t wanted = need_x ? int64_t{kGradX} : 0;
    for (size_t i = 0; i < slots.size(); ++i) {
      give(slots.get(i), saved[3 + i]);
      wanted |= ctx->needs_input_grad(1 + i) ? wanted_bit(slots.get(i)) : 0;
    }
    if (kept.defined()) {
      give(bits ? Slot::bits : Slot::checkpoints, kept);
    }
    if (first.defined()) {
      give(Slot::first_spike, first);
    }
    bool any = false;
    for (size_t i = 0; i < grads.size(); ++i) {
      const int64_t slot = incoming.get(i);
      if (slot != kNone && grads[i].defined()) {
        any = true;
        give(slot, incoming_rows(grads[i], slot, time_dim, time_first));
      }
    }
    variable_list gradients(2 + slots.size());  // of the call, which is no tensor, of x, and of those given
    if (!any || wanted == 0) {
      return gradients;
    }
    c10::List<int64_t> ints = ints_of_forward.copy();
    ints.set(Int::present, present);
    ints.set(Int::asked, wanted);
    static const c10::OperatorHandle op = operator_of("lif_cuda::lif_backward");
    const int64_t steps = of_call[Kept::steps].toInt();
    variable_list computed = run(op, x, std::move(given), std::move(ints), steps,
                                 of_call[Kept::every].toInt(), of_call[Kept::floats].toDoubleList());
    if (recorded) {
      variable_list sources(saved);
      sources.insert(sources.end(), grads.begin(), grads.end());
      std::erase_if(sources, [](const Tensor& tensor) { return !tensor.defined(); });
      computed = NoSecondDerivative::apply(Unseen{std::move(computed)}, at::TensorList(sources));
    }
    size_t next = 0;
    if (need_x) {
      Tensor& dx = computed[next++];
      gradients[1] = steps < 0 && time_first ? dx.movedim(0, time_dim) : dx;
    }
    for (size_t i = 0; i < slots.size(); ++i) {
      if (wanted & wanted_bit(slots.get(i))) {
        gradients[2 + i] = computed[next++];
      }
    }
    return gradients;
  }
};

namespace {

// The results of a call, a tuple of tensors.
PyObject* call_with(const Call& call, PyObject* x_object, PyObject* given_object) {
  HANDLE_TH_ERRORS
  TORCH_CHECK_TYPE(THPVariable_Check(x_object), "x must be a tensor");
  const Tensor& x = THPVariable_Unpack(x_object);
  const py::object items =
      py::reinterpret_steal<py::object>(PySequence_Fast(given_object, "given must be a list of tensors"));
  if (!items) {
    throw python_error();
  }
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(items.ptr());
  TORCH_CHECK_VALUE(static_cast<size_t>(count) == call.slots.size(), "given must have ", call.slots.size(),
                    " tensors, got ", count);
  variable_list given;
  given.reserve(count);
  bool record = x.requires_grad();
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* item = PySequence_Fast_GET_ITEM(items.ptr(), i);
    TORCH_CHECK_TYPE(THPVariable_Check(item), "given must be a list of tensors");
    given.push_back(THPVariable_Unpack(item));
    record = record || given.back().requires_grad();
  }
  variable_list results;
  {
    const py::gil_scoped_release without_python;
    results = record && at::GradMode::is_enabled() ? FusedLIF::apply(call, x, at::TensorList(given))
                                                   : forward(call, x, given, call.ints, 0);
  }
  py::tuple out(results.size());
  for (size_t i = 0; i < results.size(); ++i) {
    PyObject* wrapped = THPVariable_Wrap(std::move(results[i]));
    if (!wrapped) {
      throw python_error();
    }
    PyTuple_SET_ITEM(out.ptr(), static_cast<Py_ssize_t>(i), wrapped);
  }
  return out.release().ptr();
  END_HANDLE_TH_ERRORS
}

template <typename T>
c10::List<T> list_of(const std::vector<T>& values) {
  c10::List<T> list;
  list.reserve(values.size());
  for (const T& value : values) {
    list.push_back(value);
  }
  return list;
}

}  // namespace
}  // namespace lif::bindings

PYBIND11_MODULE(_node, m) {
  using lif::bindings::Call;
  using Ints = std::vector<int64_t>;
  m.doc() = "The operators under autograd, in C++.";
  m.def(
      "refuse_with",
      [](std::string second_derivative, std::string second_pass_of_bits) {
        lif::bindings::refusals() = {std::move(second_derivative), std::move(second_pass_of_bits)};
      },
      py::arg("second_derivative"), py::arg("second_pass_of_bits"),
      "The messages of what has no derivative.");
  py::class_<Call>(m, "Call")
      .def(py::init([](const Ints& ints, const Ints& ints_to_keep, const std::vector<double>& floats,
                       const Ints& slots, const Ints& incoming, int64_t steps, int64_t every,
                       int64_t first_spike, bool bits) {
             using lif::bindings::list_of;
             return Call{list_of(ints),  list_of(ints_to_keep), list_of(floats),
                         list_of(slots), list_of(incoming),     steps,
                         every,          first_spike,           bits};
           }),
           py::kw_only(), py::arg("ints"), py::arg("ints_to_keep"), py::arg("floats"), py::arg("slots"),
           py::arg("incoming"), py::arg("steps"), py::arg("every"), py::arg("first_spike"), py::arg("bits"))
      .def(
          "__call__",
          [](const Call& call, const py::handle& x, const py::handle& given) {
            PyObject* results = lif::bindings::call_with(call, x.ptr(), given.ptr());
            if (!results) {
              throw py::error_already_set();
            }
            return py::reinterpret_steal<py::tuple>(results);
          },
          py::arg("x"), py::arg("given"),
          "The results for these tensors, recorded where autograd is to know.");
}
