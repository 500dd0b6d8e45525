"""The page: a frame (layout.py), and one file for each tab."""
