"""What the Grafana dashboards show and when Prometheus warns: the one place to change them. No Grafana here.

After a change `python dashboards/build.py` writes the files beside it, which are checked in.
Metrics: `ray_mammoflow_*` are mammoflow's (mammoflow/cluster/telemetry.py), the others Ray's own.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph."""

    title: str
    unit: str
    """Grafana's name of it."""
    about: str
    """What it shows, and what to do where it looks wrong."""
    queries: dict[str, str]
    """Legend -> PromQL."""
    top: float | None = None
    """Of the axis."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What Prometheus warns of."""

    name: str
    query: str
    wait: str
    """How long it must hold."""
    says: str
    """What is wrong, and what to look at."""


def _rate(counter: str) -> str:
    return f"sum(rate(ray_mammoflow_{counter}_total[1m]))"


NODES = [
    Panel(
        "Nodes",
        "short",
        "Nodes that are alive, by kind; idle ones are given back.",
        {"nodes": "count(ray_node_mem_total)"},
    ),
    Panel(
        "CPUs in use",
        "percent",
        "Mean over nodes. Low while decoding: the source or the lake is slow, or too few files are in flight.",
        {"{{instance}}": "ray_node_cpu_utilization"},
        top=100,
    ),
    Panel(
        "Memory in use",
        "bytes",
        "By node. Flat whatever the size of the data; a rise that goes on is a fault.",
        {"{{instance}}": "ray_node_mem_used"},
    ),
    Panel(
        "Object store and spilling",
        "bytes",
        "Heavy pixels stay inside tasks: next to nothing should lie here, and nothing be spilled.",
        {"in use": "sum(ray_object_store_memory)", "spilled": 'sum(ray_object_store_memory{Location="SPILLED"})'},
    ),
]

DASHBOARDS = {
    "ingest": [
        Panel("Images decoded", "reqps", "Per second, over all nodes.", {"decoded": _rate("images_decoded")}),
        Panel("Read from the source", "Bps", "Bytes of images and outlines.", {"read": _rate("bytes_read")}),
        Panel(
            "Patches cut",
            "reqps",
            "Per second; images cut into them beside it.",
            {"patches": _rate("patches"), "images": _rate("images_cut")},
        ),
        Panel(
            "Quarantine",
            "short",
            "Images that could not be used; the reasons stand in quarantine.parquet and on qc.html.",
            {"{{stage}}": "sum by (stage) (ray_mammoflow_quarantined_total)"},
        ),
        Panel(
            "Phantoms drawn",
            "reqps",
            "Patients a second, where the data are phantoms.",
            {"patients": _rate("patients_drawn")},
        ),
        *NODES,
    ],
    "training": [
        Panel(
            "Images trained on",
            "reqps",
            "Images or patches a second in each run's last epoch.",
            {"{{run}}": "ray_mammoflow_training_images_per_second > 0"},
        ),
        Panel(
            "Waiting for data",
            "percentunit",
            "Share of the last epoch. Above a tenth: more CPUs a worker, or a lake nearer to the GPUs.",
            {"{{run}}": "ray_mammoflow_data_wait_share"},
            top=1,
        ),
        Panel(
            "Validation accuracy",
            "percentunit",
            "Of patch classifiers.",
            {"{{run}}": "ray_mammoflow_validation_accuracy"},
            top=1,
        ),
        Panel(
            "Validation AUC",
            "percentunit",
            "Of whole-image candidates.",
            {"{{candidate}}": "ray_mammoflow_validation_auc"},
            top=1,
        ),
        Panel("Epochs", "short", "Done by each run.", {"{{run}}": "ray_mammoflow_epoch"}),
        Panel(
            "GPUs in use",
            "percent",
            "By GPU. Idle ones with work waiting: see the share of waiting for data, and the cluster's events.",
            {"{{instance}} {{GpuIndex}}": "ray_node_gpus_utilization"},
            top=100,
        ),
        Panel("GPU memory", "decmbytes", "In use, by GPU.", {"{{instance}} {{GpuIndex}}": "ray_node_gram_used"}),
        *NODES,
    ],
    "tuning": [
        Panel(
            "Candidates by state",
            "short",
            "Training, waiting, done, stopped at a rung, failed; why stands in MLflow at the candidate's run.",
            {"{{state}}": "sum by (state) (ray_mammoflow_candidates)"},
        ),
        Panel(
            "Best validation AUC",
            "percentunit",
            "Of all candidates so far.",
            {"best": "max(ray_mammoflow_validation_auc)"},
            top=1,
        ),
        Panel(
            "Validation AUC",
            "percentunit",
            "The ten best candidates.",
            {"{{candidate}}": "topk(10, ray_mammoflow_validation_auc)"},
            top=1,
        ),
        Panel(
            "Images trained on",
            "reqps",
            "Over all runs; a pack's images count once for all its candidates.",
            {"all": "sum(ray_mammoflow_training_images_per_second)"},
        ),
        *NODES,
    ],
    "scoring": [
        Panel("Images scored", "reqps", "Per second, over all actors.", {"scored": _rate("images_scored")}),
        Panel(
            "Could not be scored",
            "percentunit",
            "Share of the images of the last ten minutes; the reasons stand in images.parquet.",
            {
                "share": 'sum(increase(ray_mammoflow_quarantined_total{stage="images_scored"}[10m]))'
                " / sum(increase(ray_mammoflow_images_scored_total[10m]))"
            },
            top=1,
        ),
        *NODES,
    ],
}
"""File name -> panels, two a row."""

_WORK = ("images_decoded", "images_cut", "patients_drawn", "images_mined", "images_scored")
_MOVES = " + ".join(f"(sum(increase(ray_mammoflow_{name}_total[15m])) or vector(0))" for name in _WORK)

ALERTS = [
    Alert(
        "JobStuck",
        f"(sum(ray_running_jobs) > 0) and ({_MOVES} + (sum(changes(ray_mammoflow_epoch[15m])) or vector(0)) == 0)",
        "30m",
        "A job runs, but for half an hour no image was decoded or scored and no epoch ended: see its log.",
    ),
    Alert(
        "QuarantineShare",
        f"sum(increase(ray_mammoflow_quarantined_total[15m])) / ({_MOVES}) > 0.02",
        "1m",
        "More than 2% of the images of the last quarter of an hour could not be used: see quarantine.parquet.",
    ),
    Alert(
        "GpusIdle",
        "avg by (instance) (ray_node_gpus_utilization) < 5",
        "15m",
        "GPUs of {{ $labels.instance }} idle for a quarter of an hour: no work asks for them, or it waits for data.",
    ),
    Alert(
        "Spilling",
        'sum(ray_object_store_memory{Location="SPILLED"}) > 1e9',
        "5m",
        "The object store spills to disk: something large goes through it, which is a fault of the job.",
    ),
    Alert(
        "DataWait",
        "max by (run) (ray_mammoflow_data_wait_share) > 0.3",
        "10m",
        "{{ $labels.run }} waits for data for a third of its time: more CPUs a worker, or a lake nearer to the GPUs.",
    ),
]
