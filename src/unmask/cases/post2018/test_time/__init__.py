"""What is done at test time: images or weights are adapted, answers looked up or tested."""
