"""Models that users name: ``targets`` resolves a name to a model, ``model_loaders`` knows other libraries."""
