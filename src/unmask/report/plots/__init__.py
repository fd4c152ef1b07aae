"""Plots and pictures of a report, as SVG and PNG inside the page; ``svg`` draws all curves."""
