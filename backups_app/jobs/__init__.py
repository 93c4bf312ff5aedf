"""The seam over the queue: claims, signs of life, due times, and the processes that do the work."""
