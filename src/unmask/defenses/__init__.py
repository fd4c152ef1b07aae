"""Published defenses as torch modules. ``preprocessed.Preprocessed`` puts a transformation before a network."""
