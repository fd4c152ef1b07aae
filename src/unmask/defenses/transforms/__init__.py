"""Input transformations, each a module from images (B, C, H, W) to images."""
