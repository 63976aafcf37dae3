"""What bench/gpu.sh runs: the stages one after another, each under a time limit, and a verdict at the end.

A stage that fails does not keep the next from running; the exit status is 0 only if all of them passed, 1
if one did not, 2 if the command line or the machine is not as it must be. Missed targets are no failure:
they stand in the report. In the folder of results lie at most nine files:

    report.md, report.json      the verdict
    stages.json                 what was run, how long it took and how it ended
    kernels.json, recurrent.json, resnet.json, mnist.json, profile.json
    log.txt                     what the stages printed
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import write_json
from on_gpu.stages import BENCH, NAMES, REHEARSAL_FACTOR, ROOT, Plan, Stage, rivals, sources_digest, stages

ORDER = ("rivals", *NAMES)
OUT = BENCH / "results" / "gpu"
# Seconds of the whole, and what is kept of them for the report.
TOTAL, FOR_REPORT = 480.0, 15.0
TIMED_OUT = 124
# Characters of what a stage printed that are kept, half of them from its end.
MOST_LOG = 200_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit status."""
    options = parsed(arguments)
    with tempfile.TemporaryDirectory(prefix="lif_cuda_gpu_") as scratch:
        plan = Plan(
            out=options.out.resolve(),
            site=ROOT / "build" / ("gpu_rehearsal" if options.rehearse else "gpu"),
            scratch=Path(scratch),
            python=sys.executable,
            rehearse=options.rehearse,
            data=options.data and options.data.resolve(),
            wheels=options.wheels and options.wheels.resolve(),
            sanitizer=shutil.which("compute-sanitizer"),
            profiler=shutil.which("ncu"),
        )
        plan.out.mkdir(parents=True, exist_ok=True)
        return Run(plan, options.only or list(NAMES)).all()


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, checked; exits with 2 and a message where they are not right."""
    parser = argparse.ArgumentParser(
        prog="bench/gpu.sh",
        description="The whole check on a machine with a CUDA device, in eight minutes: "
        "build, tests, sanitizers, times, and which targets are reached.",
        epilog="Needs torch with CUDA, nvcc, compute-sanitizer, ncu, setuptools, ninja, numpy, pytest "
        "and pytest-xdist, and no network. Stages, in order: " + ", ".join(NAMES) + ".",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=NAMES,
        metavar="STAGE",
        help="run this stage alone, on what an earlier run has built; may be given several times",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="the MNIST files; else the folder that LIF_CUDA_DATA names",
    )
    parser.add_argument(
        "--wheels",
        type=Path,
        metavar="FOLDER",
        help="wheels of the rivals (spikingjelly, loguru), installed apart for this run; "
        "without it they take part if they can be imported",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", default=OUT, help="results; else bench/results/gpu"
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="run every stage on the CPU with tiny sizes, to try the script itself: its figures mean nothing",
    )
    options = parser.parse_args(arguments)
    for name in ("data", "wheels"):
        folder = getattr(options, name)
        if folder is not None and not folder.is_dir():
            parser.error(f"argument --{name}: {folder} is not a folder")
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"argument --out: {options.out} is not a folder")
    if options.rehearse and options.out.resolve() == OUT:
        parser.error("argument --rehearse: needs --out, so that it does not lie where measured results do")
    return options


class Run:
    """The stages of one run and their ends."""

    def __init__(self, plan: Plan, names: Sequence[str]) -> None:
        self.plan = plan
        self.names = names
        self.began = time.monotonic()
        self.ends: list[dict[str, Any]] = []
        # Those of an earlier run on the same machine and commit, of stages that are not run now.
        self.earlier: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}

    def all(self) -> int:
        """Run them; the exit status."""
        facts = _facts(self.plan)
        if isinstance(facts, str):
            print(f"bench/gpu.sh: {facts}; --rehearse runs everything on the CPU", file=sys.stderr)
            return 2
        self.facts = facts
        if set(self.names) != set(NAMES):
            self.earlier = earlier(self.plan, facts, self.names)
        if not self.earlier:
            (self.plan.out / "log.txt").write_text("")
        self._write()
        todo = [stage for stage in stages(self.plan) if stage.name in self.names]
        if self.plan.wheels is not None:
            todo.insert(0, rivals(self.plan, self.plan.wheels))
        for stage in todo:
            print(f"== {stage.name}", flush=True)
            end = self._end_of(stage)
            self.ends.append({"stage": stage.name} | end)
            print("   " + ", ".join(f"{key} {value}" for key, value in end.items()), flush=True)
            # After each one: whoever stops the whole finds what there was until then.
            self._write()
        return 0 if all(passed(end) for end in self.ends) else 1

    def _write(self) -> None:
        write_json(
            self.plan.out / "stages.json",
            {
                "format": 1,
                "rehearsal": self.plan.rehearse,
                "facts": self.facts,
                "rivals": self.plan.wheels is not None,
                "stages": sorted(self.earlier + self.ends, key=lambda end: ORDER.index(end["stage"])),
                "seconds": time.monotonic() - self.began,
            },
        )

    def _end_of(self, stage: Stage) -> dict[str, Any]:
        """Run one stage, if it can be run."""
        if stage.leaves:
            (self.plan.out / stage.leaves).unlink(missing_ok=True)
        if stage.skipped:
            return {"skipped": stage.skipped}
        impossible = stage.impossible or self._unbuilt(stage)
        if impossible:
            return {"impossible": impossible}
        limit = stage.limit
        if self.plan.rehearse:
            limit *= REHEARSAL_FACTOR
        else:
            left = TOTAL - (time.monotonic() - self.began)
            limit = min(limit, left if stage.name == "report" else left - FOR_REPORT)
            if limit < 1:
                return {"impossible": f"the {TOTAL:g} s of the whole were over"}
        if stage.name == "build":
            # pip leaves what lies in a target folder as it is.
            shutil.rmtree(self.plan.site, ignore_errors=True)
        printed = self.plan.scratch / f"{stage.name}.log"
        began = time.monotonic()
        code = run_limited(stage.command, limit, printed, self._environment(stage))
        end = {"exit": code, "seconds": round(time.monotonic() - began, 1), "limit": round(limit)}
        text = printed.read_text(errors="replace")
        with (self.plan.out / "log.txt").open("a") as log:
            log.write(log_of(stage, end, text))
        for line in text.splitlines()[-3:]:
            print(f"   {line}")
        if stage.name == "build" and code == 0:
            (self.plan.site / "sources.txt").write_text(sources_digest())
        if (
            stage.result is not None
            and stage.result.exists()
            and stage.result != self.plan.out / stage.leaves
        ):
            shutil.copyfile(stage.result, self.plan.out / stage.leaves)
        return end

    def _unbuilt(self, stage: Stage) -> str:
        """Why there is nothing right to run; empty where there is a build, or an installed one is used."""
        if stage.name in ("build", "rivals", "report"):
            return ""
        built = self.plan.site / "sources.txt"
        if built.exists():
            return (
                ""
                if built.read_text() == sources_digest()
                else "the build is of other sources; build it anew"
            )
        return "the build failed" if "build" in self.names else ""

    def _environment(self, stage: Stage) -> dict[str, str]:
        paths = [str(path) for path in (self.plan.site, self.plan.rivals) if path.is_dir()]
        inherited = os.environ.get("PYTHONPATH")
        return {
            **os.environ,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONPATH": os.pathsep.join([*paths, *([inherited] if inherited else [])]),
            **stage.environment,
        }


def earlier(plan: Plan, facts: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Ends of other stages in the folder of results, of the same machine, commit and kind of run."""
    try:
        found = json.loads((plan.out / "stages.json").read_text())
    except (OSError, ValueError):
        return []
    same = all(
        found["facts"].get(name) == facts.get(name) for name in ("device", "torch", "commit", "changed")
    )
    if not same or found["rehearsal"] != plan.rehearse:
        return []
    return [end | {"earlier": True} for end in found["stages"] if end["stage"] not in names]


def passed(end: Mapping[str, Any]) -> bool:
    """Whether a stage ended well; one that was skipped has nothing to fail in."""
    return "skipped" in end or end.get("exit") == 0


def run_limited(command: Sequence[str], limit: float, printed: Path, environment: Mapping[str, str]) -> int:
    """The exit status of a command whose output goes to a file; TIMED_OUT where it was ended by the limit.

    It has a session of its own, so that what it has started ends with it.
    """
    with printed.open("wb") as out:
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            out.write(f"{error}\n".encode())
            return 127
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def log_of(stage: Stage, end: Mapping[str, Any], text: str) -> str:
    """A stage's part of log.txt: all that it printed, or its beginning and its end."""
    if len(text) > MOST_LOG:
        half = MOST_LOG // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    facts = ", ".join(f"{key} {value}" for key, value in end.items())
    return f"== {stage.name}: {facts}\n$ {shlex.join(stage.command)}\n{text.rstrip()}\n\n"


def _facts(plan: Plan) -> dict[str, Any] | str:
    """What the machine is, or why nothing can be run on it."""
    command = (plan.python, "-m", "on_gpu.facts", "cpu" if plan.rehearse else "cuda")
    done = subprocess.run(command, cwd=BENCH, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or ["torch cannot be asked for its devices"])[-1]
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


if __name__ == "__main__":
    sys.exit(main())
