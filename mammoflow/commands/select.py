"""Choose the ensemble and its operating point on validation, and register it as a candidate.

    mammoflow select cbis-s10-resnet50 --source /data/CBIS-DDSM --lake s3://bucket/lake

Reads    search/ and the validation images, never the test split; builds missing inputs first
Writes   ensemble/ in the lake; registered model `mammoflow`, alias `candidate`
Next     mammoflow evaluate, then mammoflow promote
"""

from mammoflow import cli, console
from mammoflow.commands import settings
from mammoflow.facts.stages import RegisteredFacts
from mammoflow.pipeline import build, outcome


def main() -> None:
    """Print the plan, choose, register, print members and the registered version."""
    config = cli.parse(__doc__, hidden=("transfer", "two_step", *settings.PLAN))
    artefacts = build.ensure("registered", config)
    chosen = outcome.load_ensemble(artefacts)
    rows = [[member.name, member.kind, f"{member.val_auc:.3f}"] for member in chosen.members]
    console.show("Ensemble (chosen on validation)", ["member", "kind", "val A-AUC"], rows)
    cutoff = f"malignant at a score of at least {chosen.cutoff:.3f} ({config.ensemble.cutoff})"
    print(f"validation A-AUC {chosen.val_auc:.3f}; {cutoff}")
    model = artefacts.registered.facts(RegisteredFacts)
    print(f"registered models:/{model.name}/{model.version} (alias candidate) at {model.tracking_uri}")
    console.show_next("evaluate", config)
