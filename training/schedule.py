"""Learning rate by the step, as a factor on each group's own rate: pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from training.recipes import Recipe

Rate = Callable[[int], float]


def rate_of(recipe: Recipe) -> Rate:
    """The recipe's schedule; the first step is step 0."""
    warmup = recipe.warmup_steps or max(1, round(recipe.warmup * recipe.steps))
    if recipe.schedule == "inverse_sqrt":
        return inverse_sqrt(recipe.steps, warmup, recipe.cooldown_steps, recipe.time_scale)
    return cosine(recipe.steps, warmup, recipe.final_rate)


def cosine(steps: int, warmup: int, final: float) -> Rate:
    """Linear warm-up to 1, then half a cosine to `final` at the last step (Loshchilov & Hutter, arXiv:1608.03983)."""

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

    return rate


def inverse_sqrt(steps: int, warmup: int, cooldown: int, time_scale: int) -> Rate:
    """Linear warm-up to 1, then 1 / √((steps since warm-up + time scale) / time scale), linearly to 0 at the end.

    The official SAM3 fine-tuning schedule (Vaswani et al., arXiv:1706.03762, with a time scale): the larger the
    time scale, the slower the decay. Officially step 0 has rate 0, which is a step thrown away; here it has 1 / warmup,
    and the last step has what the official one before it has.

    Args:
        steps: of the whole run.
        warmup: steps of the warm-up.
        cooldown: steps at the end over which the rate goes to 0 as well.
        time_scale: steps after the warm-up at which the rate is 1 / √2.
    """

    def rate(step: int) -> float:
        value = 1.0
        if step >= warmup:
            value /= math.sqrt((step - warmup + time_scale) / time_scale)
        elif warmup:
            value *= (step + 1) / warmup
        if cooldown:
            value *= max(0.0, min(1.0, (steps - step) / cooldown))
        return value

    return rate
