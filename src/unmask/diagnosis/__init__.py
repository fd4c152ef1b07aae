"""Diagnosis of a model before any attack: ``probe`` measures, ``findings`` interprets the measurements."""
