r"""The whole paper in one command: everything behind its tables 1-4 and figures 2-4. Run again, it goes on.

    ray job submit --working-dir . -- python jobs/reproduce.py --dataset cbis-ddsm \
        --source /data/CBIS-DDSM --inbreast /data/INbreast --lake s3://bucket/lake
    python jobs/reproduce.py --dry-run --source /data/CBIS-DDSM      # the plan, sizes and GPU hours
    python jobs/reproduce.py --dataset phantoms                      # at the demo's scale, within an hour on 2 cores

Reads    CBIS-DDSM and INbreast as downloaded; or draws phantoms
Writes   everything in the lake; a report with the paper's figures beside these, and report.json
Next     open the report
"""

from dataclasses import dataclass, field
from typing import Literal

from tyro.conf import FlagConversionOff

from mammoflow import cli, console
from mammoflow.config import ComputeConfig
from mammoflow.errors import ConfigError
from mammoflow.pipeline import reproduction
from mammoflow.pipeline.reproduction import Plan


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to reproduce, on what."""

    dataset: Literal["cbis-ddsm", "phantoms"] = "cbis-ddsm"
    """The paper's data, or synthetic mammograms."""
    source: str | None = None
    """Folder of CBIS-DDSM."""
    inbreast: str | None = None
    """Folder of INbreast; without it Table 4 is left out."""
    scale: Literal["demo", "smoke"] = "demo"
    """Of phantoms: smoke takes minutes and learns next to nothing."""
    lake: str | None = None
    """Folder or URL where everything is kept; else $MAMMOFLOW_LAKE, else ~/mammoflow/lake."""
    tflops: float | None = None
    """For the plan: operations that a device sustains [TFLOP/s]; else 50, as a large GPU in bf16 at batches of 2, or
    0.2, as two cores of a CPU, for phantoms."""
    compute: FlagConversionOff[ComputeConfig] = field(
        default_factory=lambda: ComputeConfig(gpu=True, cpus_per_worker=4, concurrent_trials=8)
    )
    """CPUs and GPUs to use for the paper's data; phantoms take the demo's. With --dry-run the plan alone is printed."""


def main() -> None:
    """Print the plan; unless that was all, run it and print where the report lies."""
    options = cli.options(__doc__, Options)
    if options.dataset == "phantoms":
        if options.source or options.inbreast:
            raise ConfigError("--dataset phantoms draws its own images; leave --source and --inbreast out")
        plan = reproduction.of_phantoms(options.lake, options.scale)
    elif options.source is None and not options.compute.dry_run:
        raise ConfigError("the paper's data are wanted; give --source, the folder of CBIS-DDSM, or --dataset phantoms")
    else:
        there = options.inbreast or ("INbreast" if options.compute.dry_run else None)
        plan = reproduction.of_paper(options.source or "CBIS-DDSM", there, options.lake, options.compute)
    _show(plan, options)
    if not options.compute.dry_run:
        print(f"report: {reproduction.run(plan)}")


def _show(plan: Plan, options: Options) -> None:
    """Print each step, its sizes, and what it would cost."""
    rate = options.tflops or (0.2 if options.dataset == "phantoms" else 50.0)
    found = plan.estimates()
    hours, more = ([getattr(each, name) / rate / 3.6e15 for each in found] for name in ("flops", "more_flops"))
    cells = [
        [each.what, each.recipe, each.films, each.patches, f"{own:.2f}", f"{extra:.1f}"]
        for each, own, extra in zip(found, hours, more, strict=True)
    ]
    columns = ["behind", "recipe", "films", "patches an epoch", "device hours", "at most more"]
    console.show(f"Plan, at {rate:g} TFLOP/s sustained", columns, cells)
    print(f"about {sum(hours):.1f} device hours, and at most {sum(more):.1f} more where models have not converged")


if __name__ == "__main__":
    cli.run(main)
