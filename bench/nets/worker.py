"""A network in a process of its own, training a step whenever it is told to; or the verification of all.

    cd bench && python -m nets.worker \\
        '{"case": "mlp", "network": "ReLU", "threads": 1, "keep": false, "sizes": {}}'

What a training step finds of free memory depends on all that ran in its process before, and whether memory is
kept is decided for a process: each network has one, as it has where it is trained. Their turns are those of
contenders in one process: each waits for a line, trains, and answers with a line.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn
from torch.nn import functional as nnf

import lif_cuda
from common.memory import proc_bytes
from nets.equal import firing_rates, verify
from nets.networks import Case, case_of

BENCH = Path(__file__).resolve().parents[1]
# So small that the network which is timed remains the one that was verified; a step costs what it does.
LEARNING_RATE = 1e-7


class Worker:
    """A process of this module, from the outside: of a network, or of none, which verifies all.

    Attributes:
        facts: what it said when it was ready.
        faults: page faults of each training step.
        peak_bytes: the most memory that the process has held.
    """

    def __init__(
        self, case: Case, network: str | None, *, keep: bool, threads: int | None, sizes: dict[str, int]
    ) -> None:
        task = {"case": case.name, "network": network, "keep": keep, "threads": threads, "sizes": sizes}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nets.worker", json.dumps(task)],
            cwd=BENCH,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts: dict[str, Any] = self._answer()
        self.faults: list[int] = []
        self.peak_bytes = 0

    def train(self) -> None:
        """One training step."""
        print(file=self._pipe("stdin"), flush=True)
        answer = self._answer()
        self.faults.append(answer["faults"])
        self.peak_bytes = answer["peak_bytes"]

    def close(self) -> None:
        """End the process."""
        self._pipe("stdin").close()
        self._process.wait()
        self._pipe("stdout").close()

    def _pipe(self, name: str) -> IO[str]:
        pipe: IO[str] | None = getattr(self._process, name)
        assert pipe is not None
        return pipe

    def _answer(self) -> dict[str, Any]:
        line = self._pipe("stdout").readline()
        if not line:
            raise RuntimeError(
                f"the process of a network ended with status {self._process.wait()}; what it wrote is above"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def trainer(network: nn.Module, case: Case) -> Callable[[], None]:
    """One training step: zero_grad, forward, cross entropy, backward and Adam."""
    x, labels = case.input()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        nnf.cross_entropy(network(x), labels).backward()
        optimizer.step()

    return train


def serve(task: dict[str, Any], commands: IO[str], answers: IO[str]) -> None:
    """Verify all networks; or make one, and train it as often as told."""
    if task["threads"] is not None:
        torch.set_num_threads(task["threads"])
    if task["keep"]:
        lif_cuda.keep_memory()
    case = case_of(task["case"]).resized(**task["sizes"])
    if task["network"] is None:
        networks = case.networks()
        wrong, distances = verify(case, networks)
        rates = firing_rates(networks[case.library], case.input()[0])
        facts = {"networks": list(networks), "wrong": wrong, "apart": distances, "firing_rates": rates}
        print(json.dumps(facts), file=answers, flush=True)
        return
    train = trainer(case.networks([task["network"]])[task["network"]], case)
    print(json.dumps({}), file=answers, flush=True)
    for _ in commands:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        train()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        answer = {"faults": faults, "peak_bytes": proc_bytes("self/status", "VmHWM")}
        print(json.dumps(answer), file=answers, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Serve bench/networks.py.")
    parser.add_argument("task", type=json.loads)
    serve(parser.parse_args(arguments).task, sys.stdin, sys.stdout)


if __name__ == "__main__":
    main()
