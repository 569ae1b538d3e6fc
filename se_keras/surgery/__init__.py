"""Graph to graph: functional models rewritten so that they compute the same with less."""

from se_keras.surgery.deploy import Change, Deployment, deploy

__all__ = ["Change", "Deployment", "deploy"]
