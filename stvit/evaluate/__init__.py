"""Accuracy on public benchmarks: ``python -m stvit.evaluate coco`` for detection and instance segmentation."""
