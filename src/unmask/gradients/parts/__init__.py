"""Views that read or join parts of a model, past code between them."""
