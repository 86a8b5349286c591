"""Settings that commands leave out of their help, in groups. Imports nothing."""

CLUSTER = ("compute.least_workers", "compute.forgiven_failures", "compute.concurrent_trials", "compute.workers")
"""Of training runs on several workers."""

TRAINING = (*CLUSTER, "compute.checkpointing", "compute.compile", "compute.sync_batch_norm", "compute.pack")
"""Of all training runs."""

PLAN = ("compute.dry_run",)
"""Of commands that can print their plan alone."""

NOT_SCORED = ("transfer", "trunks", "patches", "image_training", "search", "two_step", *TRAINING, *PLAN)
"""Of commands that score with a registered ensemble and train nothing."""
