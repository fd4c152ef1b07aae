"""The audit: ``run.audit`` checks a model, probes its gradients, pilots candidate views, and attacks."""
