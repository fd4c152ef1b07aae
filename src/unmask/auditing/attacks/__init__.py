"""The attacks of an audit."""
