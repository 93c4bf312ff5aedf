"""What machines ask over HTTP: does it answer, is it ready, how is everything."""
