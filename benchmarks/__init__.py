"""Speed and memory of the engine beside the stock tools, on one machine in one run.

``python -m benchmarks`` measures; nothing here is a test, and no test depends on a time.
"""
