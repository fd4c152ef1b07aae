"""What else than the image an output depends on: time, earlier queries, other images, randomness."""
