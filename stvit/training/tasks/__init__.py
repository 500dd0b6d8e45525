"""What the loop trains: classifiers, detectors, segmenters and clip models."""
