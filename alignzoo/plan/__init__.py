"""What a run would do, and how much memory its stages would take, before anything is loaded."""

from alignzoo.plan.steps import Plan, Step, plan_recipe

__all__ = ["Plan", "Step", "plan_recipe"]
