"""Images that are purified, transformed or mixed before a network sees them."""
