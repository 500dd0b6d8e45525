"""Figures of the running page for Prometheus; none says who asked for what."""

from __future__ import annotations

import gradio as gr
import torch
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from starlette.responses import Response

CALLS = Counter("stvit_calls", "Calls of the page's functions, or steps of a long one", ("function", "outcome"))
CALL_SECONDS = Histogram("stvit_call_seconds", "Time of such a call, without the time in the queue", ("function",))
REFUSED = Counter("stvit_refused", "Requests that went no further, by status of HTTP", ("status",))
BATCH_SIZES = Histogram("stvit_batch_size", "Requests that ran as one batch", buckets=(1, 2, 4, 8, 16, 32, 64))
WAITING = Gauge("stvit_queue_waiting", "Calls that wait for their turn", ("queue",))
RUNNING = Gauge("stvit_queue_running", "Calls under way", ("queue",))
SESSIONS = Gauge("stvit_sessions", "Visitors whose state is kept")
GPU_BYTES = Gauge("stvit_gpu_memory_bytes", "Memory of the GPU that tensors take")


def exposition(page: gr.Blocks) -> Response:
    """Write all figures in Prometheus' text format, those of the process and its memory among them."""
    for queue in page._queue.event_queue_per_concurrency_id.values():
        if not queue.concurrency_id.isdecimal():  # Gradio names the queues that have no name by numbers
            WAITING.labels(queue.concurrency_id).set(len(queue.queue))
            RUNNING.labels(queue.concurrency_id).set(queue.current_concurrency)
    SESSIONS.set(len(page.state_holder.session_data))
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        GPU_BYTES.set(torch.cuda.memory_allocated())
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
