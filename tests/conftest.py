"""What all tests share."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # what is not on this machine is not downloaded for a test
