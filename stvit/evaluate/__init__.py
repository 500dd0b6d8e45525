"""Accuracy on public benchmarks: ``python -m stvit.evaluate classify | coco | segment | video``."""
