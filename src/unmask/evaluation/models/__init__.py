"""Models that users name: ``targets.find_target`` resolves a name, ``sources`` knows libraries, files, services."""
