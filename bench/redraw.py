"""Draw pictures again from the JSON of an earlier run, without measuring or training.

    python bench/redraw.py bench/results/kernels_1thread.json bench/results
    python bench/redraw.py bench/results/mnist/cosine_seed0.json bench/results/mnist

Of kernels.py: a picture of each table that the JSON has. Of mnist.py: all but spikes.png, which shows what a
trained network does; its command with --resume draws that again from the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from common.picture_style import save
from job import pictures
from micro import kernel_pictures
from micro.points import FORMAT


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw what there is in a JSON."""
    parser = argparse.ArgumentParser(description="Draw pictures again from the JSON of a run.")
    parser.add_argument("json", type=Path, help="written by kernels.py --json, or results.json of mnist.py")
    parser.add_argument("folder", type=Path, help="for the pictures")
    options = parser.parse_args(arguments)
    try:
        results = json.loads(options.json.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {options.json} cannot be read as JSON: {error}")
    figures = _figures(results, options.json)
    options.folder.mkdir(parents=True, exist_ok=True)
    names = ", ".join(path.name for path in save(figures, options.folder))
    print(f"{names} are in {options.folder}")


def _figures(results: Any, path: Path) -> dict[str, Figure]:
    tables = kernel_pictures.DRAWN
    found = set(results) if isinstance(results, dict) else set()
    if "snn" in found:
        return pictures.figures(results)
    if not found & set(tables):
        sys.exit(f"error: {path} must be of mnist.py, or of kernels.py with one of {', '.join(tables)}")
    if results["format"] != FORMAT:
        sys.exit(
            f"error: {path} must be of format {FORMAT}, got {results['format']}; "
            f"measure again: {results['command']}"
        )
    return kernel_pictures.figures(results)


if __name__ == "__main__":
    main()
