"""The Benchmarks tab: accuracy as published against time as measured, of every method; and a network of one's own."""

from __future__ import annotations

from typing import Any

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

    @told
    def show(self, machine: str, name: str, against: str, batch: int) -> tuple[dict[str, Any], dict[str, Any], str]:
        """Draw what is chosen, and offer what the machine measured: its first network or batch size takes the place of
        one that it did not measure.

        Returns:
            Updates of the lists of networks and batch sizes, and the picture.

        Raises:
            UserError: nothing was measured on such a machine.
        """
        names = [group.name for group in self.groups if group.machine == machine]
        name = name if name in names else next(iter(names), name)
        batches = next((group.batches for group in self.groups if (group.machine, group.name) == (machine, name)), [])
        batch = batch if batch in batches else next(iter(batches), batch)
        drawn = self.draw(machine, name, against, batch)
        return gr.update(choices=names, value=name), gr.update(choices=batches, value=batch), drawn

    @told
    def draw(self, machine: str, name: str, against: str, batch: int) -> str:
        """Draw the methods on one network, as one machine and engine measured them.

        Raises:
            UserError: this was not measured.
        """
        group = next((group for group in self.groups if (group.machine, group.name) == (machine, name)), None)
        if group is None or against not in AGAINST or batch not in group.batches:
            raise UserError("This was not measured.", "Choose another machine, network or batch size.")
        return chart(group, AGAINST[against], batch)


def build(runtime: Runtime, engine: Component) -> None:
    """Lay the tab out and connect it; call inside a ``gr.Tab``. ``engine`` holds the name of what runs all that is
    measured here, not in figures measured before."""
    charts = BenchmarkCharts()
    if charts.groups:
        with gr.Row(elem_classes="race-controls"):
            machine = gr.Dropdown(charts.machines, label="Machine and engine", elem_id="machine", filterable=False)
            first = charts.groups[0]
            names = [group.name for group in charts.groups if group.machine == first.machine]
            name = gr.Dropdown(names, label="Network", elem_id="network", filterable=False)
            against = gr.Radio(list(AGAINST), value=next(iter(AGAINST)), label="Accuracy against", elem_id="against")
            batch = gr.Dropdown(first.batches, label="Measured batch size", elem_id="measured-batch", filterable=False)
        chosen = [machine, name, against, batch]
        drawn = read_aloud("tradeoff", charts.draw(*(part.value for part in chosen)), None)
        on_change(chosen, charts.show, chosen, [name, batch, drawn], **AT_ONCE)
    own.build(runtime, engine)
    gr.HTML(paper_charts.section(runtime.registry), elem_id="published", apply_default_css=False)
