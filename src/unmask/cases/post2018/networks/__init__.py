"""Networks whose activations, members or codes hide the gradient."""
