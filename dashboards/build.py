"""Write the dashboards and alert rules of source.py as Grafana and Prometheus read them, beside this file.

python dashboards/build.py
"""

import json
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders.common import VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, SortOrder, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from source import ALERTS, DASHBOARDS, Panel

HERE = Path(__file__).parent
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
HEIGHT, WIDTH = 8, 12  # of a panel, on Grafana's grid of 24 columns


def time_series(panel: Panel) -> TimeSeries:
    """Return a graph."""
    made = (
        TimeSeries()
        .title(panel.title)
        .description(panel.about)
        .unit(panel.unit)
        .datasource(SOURCE)
        .min(0)
        .height(HEIGHT)
        .span(WIDTH)
        .fill_opacity(8)
        .legend(
            VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if panel.top is not None:
        made = made.max(panel.top)
    for number, (legend, query) in enumerate(panel.queries.items()):
        made = made.with_target(Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + number)))
    return made


def dashboard(name: str, panels: list[Panel]) -> str:
    """Return a dashboard as Grafana's JSON."""
    made = (
        Dashboard(f"mammoflow: {name}")
        .uid(f"mammoflow-{name}")
        .tags(["mammoflow"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(DatasourceVariable("source").label("Prometheus").type("prometheus"))
    )
    for panel in panels:
        made = made.with_panel(time_series(panel))
    return str(JSONEncoder(sort_keys=True, indent=1).encode(made.build())) + "\n"


def rules() -> str:
    """Return the alerts as Prometheus' rules."""
    alerts: list[dict[str, Any]] = [
        {"alert": each.name, "expr": each.query, "for": each.wait, "annotations": {"summary": each.says}}
        for each in ALERTS
    ]
    return yaml.safe_dump({"groups": [{"name": "mammoflow", "rules": alerts}]}, sort_keys=False, width=1000)


def files() -> dict[str, str]:
    """Return what is written, by file name."""
    made = {f"{name}.json": dashboard(name, panels) for name, panels in DASHBOARDS.items()}
    for text in made.values():
        json.loads(text)
    return made | {"alerts.yaml": rules()}


def main() -> None:
    """Write the files."""
    for name, text in files().items():
        (HERE / name).write_text(text)
        print(HERE / name)


if __name__ == "__main__":
    main()
