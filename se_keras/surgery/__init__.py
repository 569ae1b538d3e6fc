"""Graph to graph: functional models rewritten so that they compute the same with less."""

from se_keras.surgery.deploy import Change, Deployment, deploy, in_float32, stage_squeezes, without_dead_blocks

__all__ = ["Change", "Deployment", "deploy", "in_float32", "stage_squeezes", "without_dead_blocks"]
