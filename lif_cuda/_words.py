"""Words that other libraries use for what has another name here: each with what to say instead."""

from __future__ import annotations

_SURROGATE = "surrogate=, an object of lif_cuda.surrogate such as surrogate.ATan()"
_THRESHOLD = "threshold="
_ALL_STATES = "output=('spikes', 'trace')"
_STEPS = "the first axis of x for T steps, or steps= for a constant input"
_NUM_NEURONS = "num_neurons=, and only where neurons differ: None takes x of any size"
_TAU = "tau= with dt= and decay='exp' or 'euler', or beta= itself (lif_cuda.decay_of gives it)"
_RATES = "beta=1 - dt * tau_mem_inv, and alpha=1 - dt * tau_syn_inv for a synaptic current"
_NONE = "nothing: it has no equal"

# Of snnTorch, SpikingJelly, Norse, sinabs and a few more.
_OURS = {
    "spike_grad": _SURROGATE,
    "surrogate_function": _SURROGATE,
    "surrogate_grad": _SURROGATE,
    "surrogate_grad_fn": _SURROGATE,
    "spike_fn": _SURROGATE,
    "v_threshold": _THRESHOLD,
    "spike_threshold": _THRESHOLD,
    "v_th": _THRESHOLD,
    "thresh": _THRESHOLD,
    "vth": _THRESHOLD,
    "v_rest": "rest=",
    "v_leak": "rest=",
    "reset_mechanism": "reset='subtract', 'zero' or 'none'",
    "reset_fn": "reset='subtract', 'zero' or 'none'",
    "reset_method": "reset='subtract', 'zero' or 'none'",
    "hard_reset": "reset='zero'",
    "soft_reset": "reset='subtract', the default",
    "reset_delay": "delay_reset=True with detach_reset=True; here a reset is at once by default",
    "init_hidden": "stateful=True",
    "hidden_state": "stateful=True",
    "step_mode": "layer(x) for all T steps, layer.step(x, state) for one",
    "batch_first": "time_dim=1",
    "tau_mem": _TAU,
    "init_tau": _TAU + ", and learn_beta=True to learn it",
    "tau_syn": "alpha=, the decay of the current: lif_cuda.decay_of(tau_syn, dt, 'exp')",
    "tau_mem_inv": _RATES,
    "tau_syn_inv": _RATES,
    "p": _RATES,
    "time_step": "dt=, with tau= and decay=",
    "train_alphas": "learn_beta=True with bound='clamp'",
    "train_tau": "learn_beta=True",
    "learn_tau": "learn_beta=True",
    "norm_input": "decay_input=",
    "record_states": _ALL_STATES,
    "store_v_seq": _ALL_STATES,
    "return_hidden": _ALL_STATES,
    "num_steps": _STEPS,
    "num_timesteps": _STEPS,
    "T": _STEPS,
    "seq_length": _STEPS,
    "shape": _NUM_NEURONS,
    "size": _NUM_NEURONS,
    "hidden_size": _NUM_NEURONS,
    "num_features": _NUM_NEURONS,
    "linear_features": _NUM_NEURONS,
    "tau_adapt": "rho=, the decay of the threshold's rise a step",
    "adapt_scale": "kappa=",
    "backend": "nothing: the device of x chooses",
    "surrogate_disable": "torch.no_grad() around the call",
    "inhibition": _NONE,
    "state_quant": _NONE,
    "graded_spikes_factor": _NONE,
    "min_v_mem": "v_min=",
}


_STATE = (
    "a layer keeps no state unless stateful=True: pass None where a series begins, layer.step(x_t, None), "
    "or call reset_state()"
)
# Methods of snnTorch's neurons, which a converted one has.
_METHODS = {
    "init_leaky": _STATE,
    "init_synaptic": _STATE,
    "init_lapicque": _STATE,
    "reset_mem": _STATE,
    "reset_hidden": _STATE,
    "detach_hidden": "a stateful layer detaches its state by itself, unless detach_state=False",
}


def ours_for_method(name: str) -> str | None:
    """What is said here in place of a method of another library's neuron; None: it is none of those."""
    return _METHODS.get(name)


def ours_for(word: str) -> str | None:
    """What is said here in place of another library's word; None: it is none of those."""
    return _OURS.get(word)
