"""Reproduce the whole paper: everything behind tables 1-4 and figures 2-4. A second run continues the first.

    mammoflow reproduce --source /data/CBIS-DDSM --inbreast /data/INbreast --lake s3://bucket/lake
    mammoflow reproduce --dry-run --source /data/CBIS-DDSM      # the plan, sizes and GPU hours
    mammoflow reproduce --dataset phantoms                      # at the demo's scale, within an hour on 2 cores

Reads    CBIS-DDSM and INbreast as downloaded; or draws phantoms
Writes   everything in the lake; a report with the paper's figures beside these, and report.json
Next     open the report
"""

from dataclasses import dataclass, field
from typing import Literal

from mammoflow import cli, console
from mammoflow.config import ComputeConfig
from mammoflow.errors import ConfigError
from mammoflow.pipeline import reproduction
from mammoflow.pipeline.reproduction import Plan
from mammoflow.rendering.formats import Value


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to reproduce, on which data."""

    dataset: Literal["cbis-ddsm", "phantoms"] = "cbis-ddsm"
    """The paper's data, or synthetic mammograms."""
    source: str | None = None
    """Folder of CBIS-DDSM."""
    inbreast: str | None = None
    """Folder of INbreast; without it Table 4 is left out."""
    scale: Literal["demo", "smoke"] = "demo"
    """Scale of the phantoms; smoke takes minutes and learns next to nothing."""
    lake: str | None = None
    """Folder or URL of the lake; else $MAMMOFLOW_LAKE, else ~/mammoflow/lake."""
    tflops: float | None = None
    """Sustained rate of a device, for the plan [TFLOP/s]. Default: 50, a large GPU in bf16 at batches of 2; for
    phantoms 0.2, two CPU cores."""
    compute: ComputeConfig = field(
        default_factory=lambda: ComputeConfig(gpu=True, cpus_per_worker=4, concurrent_trials=8)
    )
    """CPUs and GPUs for the paper's data; phantoms use the demo's. --dry-run prints the plan only."""


def main() -> None:
    """Print the plan; without --dry-run, run it and print the path of the report."""
    options = cli.options(__doc__, Options)
    if options.dataset == "phantoms":
        if options.source or options.inbreast:
            raise ConfigError("--dataset phantoms draws its own images; leave --source and --inbreast out")
        plan = reproduction.of_phantoms(options.lake, options.scale)
    elif options.source is None and not options.compute.dry_run:
        raise ConfigError(
            "source is None, but the paper's data are needed; give --source the folder of CBIS-DDSM, or "
            "--dataset phantoms"
        )
    else:
        there = options.inbreast or ("INbreast" if options.compute.dry_run else None)
        plan = reproduction.of_paper(options.source or "CBIS-DDSM", there, options.lake, options.compute)
    _show(plan, options)
    if not options.compute.dry_run:
        print(f"report: {reproduction.run(plan)}")


def _show(plan: Plan, options: Options) -> None:
    """Print each step, its sizes, and what it would cost."""
    rate = options.tflops or (0.2 if options.dataset == "phantoms" else 50.0)
    steps = plan.estimates()
    hours, more = ([getattr(step, name) / rate / 3.6e15 for step in steps] for name in ("flops", "more_flops"))
    cells: list[list[Value]] = [
        [step.what, step.recipe, step.films, step.patches, f"{least:.2f}", f"{extra:.1f}"]
        for step, least, extra in zip(steps, hours, more, strict=True)
    ]
    columns = ["behind", "recipe", "films", "patches an epoch", "device hours", "at most more"]
    console.show(f"Plan, at {rate:g} TFLOP/s sustained", columns, cells)
    print(f"about {sum(hours):.1f} device hours, and at most {sum(more):.1f} more where models have not converged")
