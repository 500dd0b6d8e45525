"""Data sets to train on: pictures, scenes in COCO's format, ADE20K, clips."""
