"""The Benchmarks tab: accuracy as published against time as measured, of every method; and a network of one's own."""

from __future__ import annotations

import gradio as gr
from gradio.components import Component

from demo.charts import published as paper_charts
from demo.charts.tradeoff import chart, load_groups
from demo.errors import told
from demo.runtime import AT_ONCE, Runtime
from demo.tabs.benchmarks import own
from demo.tabs.parts import on_change, read_aloud
from stvit.errors import UserError

AGAINST = {"Time, measured": "time", "Multiply-adds, computed": "multiply-adds"}


class BenchmarkCharts:
    """The charts of all committed measurements, by what is chosen."""

    def __init__(self) -> None:
        self.groups = load_groups()
        self.machines = list(dict.fromkeys(group.machine for group in self.groups))
        self.names = list(dict.fromkeys(group.name for group in self.groups))
        self.batches = sorted({batch for group in self.groups for entry in group.entries for batch in entry.ms})

    @told
    def draw(self, machine: str, name: str, against: str, batch: int) -> str:
        """Draw the methods on one network, as one machine and engine measured them.

        Raises:
            UserError: this was not measured.
        """
        group = next((group for group in self.groups if (group.machine, group.name) == (machine, name)), None)
        if group is None or against not in AGAINST or any(batch not in entry.ms for entry in group.entries):
            raise UserError("This was not measured.", "Choose another machine, network or batch size.")
        return chart(group, AGAINST[against], batch)


def build(runtime: Runtime, engine: Component) -> None:
    """Lay the tab out and connect it; call inside a ``gr.Tab``. ``engine`` holds the name of what runs all that is
    measured here, not in figures measured before."""
    charts = BenchmarkCharts()
    if charts.groups:
        with gr.Row(elem_classes="race-controls"):
            machine = gr.Dropdown(charts.machines, label="Machine and engine", elem_id="machine", filterable=False)
            name = gr.Dropdown(charts.names, label="Network", elem_id="network", filterable=False)
            against = gr.Radio(list(AGAINST), value=next(iter(AGAINST)), label="Accuracy against", elem_id="against")
            batch = gr.Dropdown(
                charts.batches, label="Batch size of the measurement", elem_id="measured-batch", filterable=False
            )
        chosen = [machine, name, against, batch]
        drawn = read_aloud("tradeoff", charts.draw(*(part.value for part in chosen)), None)
        on_change(chosen, charts.draw, chosen, drawn, **AT_ONCE)
    own.build(runtime, engine)
    gr.HTML(paper_charts.section(runtime.registry), elem_id="published", apply_default_css=False)
