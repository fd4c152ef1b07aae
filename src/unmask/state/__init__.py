"""What a model keeps from call to call: as it was at one moment, and put back."""

from unmask.state.snapshot import State, is_users

__all__ = ["State", "is_users"]
