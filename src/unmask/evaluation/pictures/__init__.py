"""What a run keeps for the pictures of its report: ``trajectory_tensors`` and ``landscape_tensors``."""
