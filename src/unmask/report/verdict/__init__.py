"""Whether gradients are masked, and whether the figure is reliable: ``masking`` and ``warnings`` decide."""
