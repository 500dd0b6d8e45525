"""Image and clip models on video clips: any clip in, an annotated clip that plays in every browser out.

``python -m stvit.video IN OUT`` from a shell, :func:`stvit.video.pipeline.process` from Python. A clip is decoded,
prepared, run through a model, drawn on and encoded by stages that work at the same time; a few frames are in memory at
once. Needs the packages of the extra ``video``; ``import stvit`` does not import it.
"""
