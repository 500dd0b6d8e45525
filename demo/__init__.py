"""The demo: a Gradio page over the library."""
