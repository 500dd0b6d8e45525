"""The endpoint for architectures of timm: the comparison of the Benchmarks tab."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from demo.api.inputs import engine_name, number, offered_batch
from demo.api.results import Comparison, result
from demo.errors import told
from demo.export import benchmark_json
from demo.own import DEFAULT_TOKENS, own_pair
from demo.runtime import COMPARISON_QUEUE, Runtime

DESCRIPTION = (
    "Interleaved measurement of any ViT, Eva or Swin of timm, as it is ('baseline') and sparsified ('model'): latency "
    "at batch 1, with a larger batch size throughput and peak device memory too, multiply-adds, parameters. Structures "
    "alone, with random weights; nothing is downloaded. What cannot be sparsified, and large networks, are refused "
    "with the reason. Yields what is known so far; the last value is complete."
)
BY_THE_RULE = -1


class ArchitectureEndpoint:
    """The function behind the endpoint.

    Args:
        batch_sizes: that a comparison may have.
    """

    def __init__(self, runtime: Runtime, batch_sizes: Sequence[int]) -> None:
        self.runtime, self.batch_sizes = runtime, batch_sizes

    @told
    def compare_architecture(
        self, architecture: str, tokens: int, position: int, batch_size: int, engine: str
    ) -> Iterator[dict[str, Any]]:
        """Measure an architecture beside its sparsified copy, in turns.

        Args:
            architecture: Its name in timm, for instance deit_small_patch16_224.
            tokens: Semantic tokens, a square number; of Swin, in each window of stage 3.
            position: Layers before them (of Swin, of stage 3); -1 for a third of all, of Swin for half of all.
            batch_size: Images of a batch where throughput is measured; 1 for latency alone.
            engine: What runs both networks: auto (the fastest), eager, or another at hand, such as openvino.
        """
        offered_batch(batch_size, self.batch_sizes)
        pair = own_pair(architecture, tokens, None if position == BY_THE_RULE else position)
        yield from map(benchmark_json, self.runtime.benchmark_own(*pair, batch_size, engine))


def build(runtime: Runtime, batch_sizes: Sequence[int]) -> None:
    """Register the endpoint; call inside ``gr.Blocks``."""
    inputs = [
        gr.Textbox(label="Architecture", visible=False),  # without a default, as pictures are
        number("Semantic tokens", DEFAULT_TOKENS),
        number("Position", BY_THE_RULE),
        number("Batch size", 1),
        engine_name(runtime),
    ]
    run = ArchitectureEndpoint(runtime, batch_sizes).compare_architecture
    gr.Button(visible=False).click(
        run,
        inputs,
        result(Comparison, "comparison"),
        api_name="compare_architecture",
        api_description=DESCRIPTION,
        **COMPARISON_QUEUE,
    )
