"""Other people's ways to read images from a bucket, each as its users would write it.

Runs in an environment of its own (`requirements.txt` beside this file), so nothing here imports Starling.
"""
