"""From what was measured to results.json and to the table that is printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from job.training import Network
from lif_cuda import energy

NOTES = {
    "accuracy": "percent, of all images given, with the weights at the end of the epoch",
    "loss": "cross entropy, mean over the images of the epoch while the weights move",
    "firing_rates": "spikes per neuron and time step on the test images, 0 to 1",
    "operations": "per image; see lif_cuda/energy.py",
    "energy": "per image, in units of one MAC, with AC = MAC/5",
    "seconds": "training_seconds: the passes with weight updates; evaluation_seconds: train and "
    "test accuracy; seconds_per_epoch: the median of training_seconds",
}


def network_report(network: Network, sizes: Sequence[int]) -> dict[str, Any]:
    """The object of one network in results.json.

    Args:
        network: trained for at least one epoch.
        sizes: neurons of each layer, the input first.
    """
    history = network.history
    parameters = dict(network.model.named_parameters())
    report: dict[str, Any] = {
        "backend": network.backend,
        "layer_sizes": list(sizes),
        "epochs": history.epochs,
        "test_accuracy": history.test_accuracy[-1],
        "train_accuracy": history.train_accuracy[-1],
        "test_accuracy_by_epoch": history.test_accuracy,
        "train_accuracy_by_epoch": history.train_accuracy,
        "loss": history.loss[-1],
        "loss_by_epoch": history.loss,
        "parameters": sum(p.numel() for p in parameters.values()),
        "decay_parameters": sum(p.numel() for name, p in parameters.items() if name.endswith("beta_logit")),
        "seconds_per_epoch": statistics.median(history.training_seconds),
        "training_seconds_by_epoch": history.training_seconds,
        "evaluation_seconds_by_epoch": history.evaluation_seconds,
    }
    if network.steps is None:
        macs = energy.dense_macs(sizes)
        return report | {"operations": {"macs": macs}, "energy": {"energy": float(macs)}}

    layers = list(history.firing_rates)
    rates = [history.firing_rates[layer][-1] for layer in layers]
    published = energy.published(sizes, network.steps, rates)
    honest = energy.honest(sizes, network.steps, rates)
    report |= {
        "steps": network.steps,
        "firing_rates": dict(zip(layers, rates, strict=True)) | {"mean": published.rate},
        "firing_rates_by_epoch": history.firing_rates,
        "operations": {
            "published": {"sops": published.sops},
            "honest": {
                "first_layer_macs": honest.first_layer_macs,
                "sops_by_layer": dict(zip(("fc2", "fc3"), honest.sops_by_layer, strict=True)),
                "sops": honest.sops,
                "neuron_macs": honest.neuron_macs,
            },
        },
        "energy": {
            "macs_per_ac": energy.MACS_PER_AC,
            "published": {
                "energy": published.energy,
                "saving_percent": published.saving_percent,
            },
            "honest": {
                "energy": honest.energy,
                "saving_percent": honest.saving_percent,
                "energy_with_neurons": honest.energy_with_neurons,
                "saving_percent_with_neurons": honest.saving_percent_with_neurons,
            },
        },
    }
    if (additions := history.additions[-1]) is not None:
        executed = energy.executed(sizes, 1, additions)
        report["operations"]["executed"] = {"additions": executed.additions, "macs": executed.macs}
        report["energy"]["executed"] = {
            "energy": executed.energy,
            "saving_percent": executed.saving_percent,
        }
    return report


def comparison(fused: Network, reference: Network) -> dict[str, Any]:
    """How far two trainings of one network parted, and which was faster.

    Differences are fused minus reference; those of accuracies are in percentage points.
    """
    a, b = fused.history, reference.history
    by_batch = [
        [abs(x - y) for x, y in zip(one, other, strict=True)]
        for one, other in zip(a.step_losses, b.step_losses, strict=True)
    ]
    flat = [difference for epoch in by_batch for difference in epoch]
    equal = next((i for i, difference in enumerate(flat) if difference != 0.0), len(flat))
    seconds = {
        "fused": statistics.median(a.training_seconds),
        "reference": statistics.median(b.training_seconds),
    }
    return {
        "batches": len(flat),
        "batches_with_equal_loss_from_the_start": equal,
        "max_abs_batch_loss_difference_by_epoch": [max(epoch) for epoch in by_batch],
        "loss_difference_by_epoch": _differences(a.loss, b.loss),
        "test_accuracy_difference_by_epoch": _differences(a.test_accuracy, b.test_accuracy),
        "train_accuracy_difference_by_epoch": _differences(a.train_accuracy, b.train_accuracy),
        "seconds_per_epoch": seconds,
        "speedup": seconds["reference"] / seconds["fused"],
    }


def table(results: dict[str, Any]) -> str:
    """One table of the networks in ``results``, and the comparison if there is one."""
    networks = [results[key] for key in ("snn", "snn_reference", "ann") if key in results]
    rows: list[tuple[str, list[str]]] = [("", [_title(net) for net in networks])]

    def add(label: str, pattern: str, *keys: str, ann: Sequence[str] = ()) -> None:
        """A row of what each network has under ``keys``, the ANN under ``ann`` if given."""
        values = [_at(net, keys if net["backend"] else ann or keys) for net in networks]
        rows.append((label, ["-" if value is None else pattern.format(value) for value in values]))

    def head(label: str) -> None:
        rows.append((label, []))

    add("test accuracy, %", "{:.2f}", "test_accuracy")
    add("train accuracy, %", "{:.2f}", "train_accuracy")
    add("parameters", "{:,}", "parameters")
    add("  of them decays", "{:,}", "decay_parameters")
    add("firing rate of lif1", "{:.2%}", "firing_rates", "lif1")
    add("firing rate of lif2", "{:.2%}", "firing_rates", "lif2")
    add("firing rate, mean", "{:.2%}", "firing_rates", "mean")
    add("MACs, dense", "{:,}", "operations", "macs")
    head("as published: all synapses at the mean firing rate, the pixels' too")
    add("  SOPs", "{:,.0f}", "operations", "published", "sops")
    add("  energy, in MACs", "{:,.0f}", "energy", "published", "energy", ann=("energy", "energy"))
    add("  below the ANN by, %", "{:.1f}", "energy", "published", "saving_percent")
    head("honest count: pixels as MACs once, later layers by the spikes that enter them")
    add("  MACs of fc1", "{:,}", "operations", "honest", "first_layer_macs")
    add("  SOPs of fc2", "{:,.0f}", "operations", "honest", "sops_by_layer", "fc2")
    add("  SOPs of fc3", "{:,.0f}", "operations", "honest", "sops_by_layer", "fc3")
    add("  energy, in MACs", "{:,.0f}", "energy", "honest", "energy", ann=("energy", "energy"))
    add("  below the ANN by, %", "{:.1f}", "energy", "honest", "saving_percent")
    add("  MACs of the neurons' leak", "{:,}", "operations", "honest", "neuron_macs")
    add("  energy with them, in MACs", "{:,.0f}", "energy", "honest", "energy_with_neurons")
    add("  below the ANN by, %", "{:.1f}", "energy", "honest", "saving_percent_with_neurons")
    if any(_at(net, ("operations", "executed")) for net in networks):  # of Linears that add for spikes
        head("as executed: additions of fc2, counted by the layer; fc1 once, fc3 on counts")
        add("  additions of fc2", "{:,.0f}", "operations", "executed", "additions")
        add("  MACs of fc1 and fc3", "{:,}", "operations", "executed", "macs")
        add("  energy, in MACs", "{:,.0f}", "energy", "executed", "energy", ann=("energy", "energy"))
        add("  below the ANN by, %", "{:.1f}", "energy", "executed", "saving_percent")
    add("seconds an epoch, training", "{:.2f}", "seconds_per_epoch")

    first = max(len(label) for label, values in rows if values)
    width = max(len(value) for _, values in rows for value in values) + 2
    lines = [label.ljust(first) + "".join(value.rjust(width) for value in values) for label, values in rows]
    lines.insert(1, "-" * (first + width * len(networks)))
    if "comparison" in results:
        lines += ["", compared(results["comparison"])]
    return "\n".join(lines)


def compared(found: dict[str, Any]) -> str:
    losses = found["max_abs_batch_loss_difference_by_epoch"]
    return "\n".join(
        [
            "fused against reference, from the same seed:",
            f"  losses of the first {found['batches_with_equal_loss_from_the_start']:,} of "
            f"{found['batches']:,} batches are equal to the last bit",
            "  largest difference of a batch's loss, by epoch: "
            + " ".join(f"{value:.1e}" for value in losses),
            "  test accuracy apart, points, by epoch: "
            + " ".join(f"{value:+.2f}" for value in found["test_accuracy_difference_by_epoch"]),
            f"  an epoch of training takes {found['seconds_per_epoch']['fused']:.2f} s fused and "
            f"{found['seconds_per_epoch']['reference']:.2f} s reference: {found['speedup']:.2f}x",
        ]
    )


def _differences(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [x - y for x, y in zip(one, other, strict=True)]


def _title(report: dict[str, Any]) -> str:
    return f"SNN {report['backend']}" if report["backend"] else "ANN"


def _at(report: dict[str, Any], keys: Sequence[str]) -> Any:
    value: Any = report
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value
