"""Runs: ``plan`` lists the jobs, ``runner.run`` executes them, ``store`` keeps the results."""
