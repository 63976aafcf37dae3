// The operators under autograd, without the interpreter: what FusedLIF in lif_cuda/_autograd.py does.
//
// The time of a small layer is that of its call: bench/kernels.py, with LIF_CUDA_AUTOGRAD=python and without,
// has the microseconds of both.
//
// A library of its own: it alone needs more of torch than the stable interface, and so the very torch that it
// was built with. Beside another, under torch.compile, which traces Python, and under torch.func, the Python
// functions work. The tests run both.
#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "autograd/operation.h"
#include "ops/interface.h"
#include "ops/strides.h"

namespace py = pybind11;

namespace lif::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What is refused, in the words of lif_cuda/_autograd.py.
struct Refusals {
  std::string forward_mode;
  std::string second_derivative;
  std::string second_pass_of_bits;
};

Refusals& refusals() {
  static Refusals texts;
  return texts;
}

// A call besides its tensors. What a context keeps is a list of torch's own, which calls share and do not
// copy.
struct Call {
  Ints ints;          // for a call that is not recorded
  Ints ints_to_keep;  // for one that is: asks for what backward needs, too
  Floats floats;
  c10::List<int64_t> for_backward;  // as Kept says
  c10::List<double> floats_for_backward;
  size_t given;  // how many tensors
  int64_t steps;
  int64_t every;
  int64_t first_spike;                    // the result of that name, or kNone
  bool peak;                              // whether the step of the largest membrane is kept
  std::vector<int64_t> without_gradient;  // results, in rising order
  bool bits;
};
constexpr int64_t kNone = -1;

// What backward has to know of a call, in one list: compiled autograd reads lists in the context of a
// function, and no structs. Behind the operator's ints stand these, then the slots of the tensors given, then
// those of the gradients of the results that have one.
struct Kept {
  enum : size_t { steps = Int::count, every, bits, given, count };
};

// Behind the slots of the gradients, one that no operator takes: that of the total (_ops.TOTAL).
constexpr int64_t kTotalPlace = Slot::count;

// The gradient of the total as one of each neuron's count: the same number for all, of one element.
Tensor of_each_neuron(const Tensor& grad, const Tensor& x, int64_t time_dim, int64_t steps) {
  std::vector<int64_t> features(x.sizes().begin(), x.sizes().end());
  if (steps < 0) {
    features.erase(features.begin() + time_dim);
  }
  return grad.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat).expand(features);
}

// Tensors that autograd does not see among the arguments of a function.
struct Unseen {
  variable_list tensors;
};

variable_list forward(const Call& call, const Tensor& x, at::TensorList given, const Ints& ints,
                      int64_t every) {
  static const Operation op("lif_cuda::lif_forward", &Direct::forward);
  return run(op, x, given, ints, call.steps, every, call.floats);
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
  const bool parameter = at >= Slot::parameter && at < Slot::parameter + kLearnable;
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

  // Results without a gradient go aside: compiled autograd has no word for them in the context of a function.
  static variable_list forward(AutogradContext* ctx, const Call& call, variable_list* aside, const Tensor& x,
                               const at::TensorList& given) {
    variable_list results = autograd::forward(call, x, given, call.ints_to_keep, call.every);
    Tensor kept;
    if (call.every > 0 || call.bits) {
      kept = std::move(results.back());
      results.pop_back();
    }
    Tensor peak;
    if (call.peak) {
      peak = std::move(results.back());
      results.pop_back();
    }
    variable_list saved{x, kept, call.first_spike == kNone ? Tensor() : results[call.first_spike], peak};
    if (call.bits) {
      saved[0] = at::empty({}, x.options()).expand(x.sizes());  // a shape without its memory
    }
    saved.insert(saved.end(), given.begin(), given.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["call"] = call.for_backward;
    ctx->saved_data["floats"] = call.floats_for_backward;
    ctx->set_materialize_grads(false);
    for (size_t i = call.without_gradient.size(); i-- > 0;) {
      const auto place = results.begin() + call.without_gradient[i];
      aside->insert(aside->begin(), std::move(*place));
      results.erase(place);
    }
    return results;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Ints call = ctx->saved_data["call"].toIntVector();
    const auto given_count = static_cast<size_t>(call[Kept::given]);
    const int64_t* const slots = call.data() + Kept::count;
    const int64_t* const incoming = slots + given_count;
    const int64_t steps = call[Kept::steps];
    const int64_t time_dim = call[Int::time_dim];
    const bool time_first = call[Int::time_first] != 0;
    const bool bits = call[Kept::bits] != 0;
    const bool recorded = at::GradMode::is_enabled();
    // What would refuse a second derivative hangs on x, and x was not kept.
    TORCH_CHECK_NOT_IMPLEMENTED(!(recorded && bits), refusals().second_pass_of_bits);

    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &kept = saved[1], &first = saved[2], &peak = saved[3];
    variable_list given;
    given.reserve(saved.size() + grads.size());
    int64_t present = 0;
    const auto give = [&](int64_t slot, const Tensor& tensor) {
      present |= int64_t{1} << slot;
      given.push_back(tensor);
    };
    const bool need_x = ctx->needs_input_grad(0);
    int64_t wanted = need_x ? int64_t{kGradX} : 0;
    for (size_t i = 0; i < given_count; ++i) {
      give(slots[i], saved[4 + i]);
      wanted |= ctx->needs_input_grad(1 + i) ? wanted_bit(slots[i]) : 0;
    }
    if (kept.defined()) {
      give(bits ? Slot::bits : Slot::checkpoints, kept);
    }
    if (first.defined()) {
      give(Slot::first_spike, first);
    }
    if (peak.defined()) {
      give(Slot::peak, peak);
    }
    std::array<Tensor, kIncoming> arrived;
    for (size_t i = 0; i < grads.size(); ++i) {
      if (grads[i].defined() && incoming[i] != kTotalPlace) {
        arrived[static_cast<size_t>(incoming[i]) - Slot::grad] = grads[i];
      } else if (grads[i].defined()) {
        const Tensor of_each = of_each_neuron(grads[i], x, time_dim, steps);
        Tensor& of_count =
            arrived[kOfCount];  // the results are in order, and so it is there, if it is at all
        of_count = of_count.defined() ? at::add(of_count, of_each) : of_each;
      }
    }
    bool any = false;
    for (size_t output = 0; output < kIncoming; ++output) {
      if (arrived[output].defined()) {
        any = true;
        const auto slot = static_cast<int64_t>(Slot::grad + output);
        give(slot, incoming_rows(arrived[output], slot, time_dim, time_first));
      }
    }
    variable_list gradients(3 + given_count);  // the first two arguments are no tensors, the third is x
    if (!any || wanted == 0) {
      return gradients;
    }
    Ints ints(call.begin(), call.begin() + Int::count);
    ints[Int::present] = present;
    ints[Int::asked] = wanted;
    static const Operation op("lif_cuda::lif_backward", &Direct::backward);
    variable_list computed =
        run(op, x, given, ints, steps, call[Kept::every], ctx->saved_data["floats"].toDoubleVector());
    if (recorded) {
      variable_list sources;
      for (const variable_list& tensors : {saved, grads}) {
        std::copy_if(tensors.begin(), tensors.end(), std::back_inserter(sources),
                     [](const Tensor& tensor) { return tensor.defined(); });
      }
      computed = NoSecondDerivative::apply(Unseen{std::move(computed)}, at::TensorList(sources));
    }
    size_t next = 0;
    if (need_x) {
      Tensor& dx = computed[next++];
      gradients[2] = steps < 0 && time_first ? dx.movedim(0, time_dim) : dx;
    }
    for (size_t i = 0; i < given_count; ++i) {
      if (wanted & wanted_bit(slots[i])) {
        gradients[3 + i] = computed[next++];
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
  const auto items =
      py::reinterpret_steal<py::object>(PySequence_Fast(given_object, "given must be a list of tensors"));
  if (!items) {
    throw python_error();
  }
  const auto count = static_cast<size_t>(PySequence_Fast_GET_SIZE(items.ptr()));
  TORCH_CHECK_VALUE(count == call.given, "given must have ", call.given, " tensors, got ", count);
  variable_list given;
  given.reserve(count);
  bool record = x.requires_grad();
  bool forward_mode = x._fw_grad(0).defined();
  for (size_t i = 0; i < count; ++i) {
    PyObject* item = PySequence_Fast_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(i));
    TORCH_CHECK_TYPE(THPVariable_Check(item), "given must be a list of tensors");
    given.push_back(THPVariable_Unpack(item));
    record = record || given.back().requires_grad();
    forward_mode = forward_mode || given.back()._fw_grad(0).defined();
  }
  TORCH_CHECK_NOT_IMPLEMENTED(!forward_mode, refusals().forward_mode);
  variable_list results;
  {
    const py::gil_scoped_release without_python;
    if (record && at::GradMode::is_enabled()) {
      variable_list aside;
      results = FusedLIF::apply(call, &aside, x, at::TensorList(given));
      for (size_t i = 0; i < aside.size(); ++i) {
        results.insert(results.begin() + call.without_gradient[i], std::move(aside[i]));
      }
    } else {
      results = forward(call, x, given, call.ints, 0);
    }
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

}  // namespace
}  // namespace lif::autograd

PYBIND11_MODULE(_node, m) {
  using lif::autograd::Call;
  using lif::autograd::Floats;
  using lif::autograd::Ints;
  using lif::autograd::list_of;
  m.doc() = "The operators under autograd, in C++.";
  m.def(
      "refuse_with",
      [](std::string forward_mode, std::string second_derivative, std::string second_pass_of_bits) {
        lif::autograd::refusals() = {std::move(forward_mode), std::move(second_derivative),
                                     std::move(second_pass_of_bits)};
      },
      py::kw_only(), py::arg("forward_mode"), py::arg("second_derivative"), py::arg("second_pass_of_bits"),
      "The messages of what has no derivative.");
  m.def("call_directly", &lif::autograd::call_directly, py::kw_only(), py::arg("device"), py::arg("library"),
        "Call the operators of a device in their library, which is loaded, where nobody else is to hear of "
        "it; None: through the dispatcher.");
  py::class_<Call>(m, "Call")
      .def(py::init([](const Ints& ints, const Ints& ints_to_keep, const Floats& floats, const Ints& slots,
                       const Ints& incoming, int64_t steps, int64_t every, int64_t first_spike, bool peak,
                       bool bits) {
             Ints for_backward = ints;
             for_backward.insert(for_backward.end(),
                                 {steps, every, bits, static_cast<int64_t>(slots.size())});
             for_backward.insert(for_backward.end(), slots.begin(), slots.end());
             Ints without_gradient;
             for (size_t i = 0; i < incoming.size(); ++i) {
               if (incoming[i] == lif::autograd::kNone) {
                 without_gradient.push_back(static_cast<int64_t>(i));
               } else {
                 for_backward.push_back(incoming[i]);
               }
             }
             return Call{ints,
                         ints_to_keep,
                         floats,
                         list_of(for_backward),
                         list_of(floats),
                         slots.size(),
                         steps,
                         every,
                         first_spike,
                         peak,
                         std::move(without_gradient),
                         bits};
           }),
           py::kw_only(), py::arg("ints"), py::arg("ints_to_keep"), py::arg("floats"), py::arg("slots"),
           py::arg("incoming"), py::arg("steps"), py::arg("every"), py::arg("first_spike"), py::arg("peak"),
           py::arg("bits"))
      .def(
          "__call__",
          [](const Call& call, const py::handle& x, const py::handle& given) {
            PyObject* results = lif::autograd::call_with(call, x.ptr(), given.ptr());
            if (!results) {
              throw py::error_already_set();
            }
            return py::reinterpret_steal<py::tuple>(results);
          },
          py::arg("x"), py::arg("given"),
          "The results for these tensors, recorded where autograd is to know.");
}
