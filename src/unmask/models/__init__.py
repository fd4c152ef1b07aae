"""How models of any form are called: ``model_wrappers.query`` runs one, ``forms`` converts one."""
