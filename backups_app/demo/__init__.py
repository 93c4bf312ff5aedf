"""The demonstration: a live sample site, the old way to copy it, and ours."""
