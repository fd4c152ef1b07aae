"""The forms in which users give their own data: start with :func:`unmask.data.forms.resolve.resolve`."""
