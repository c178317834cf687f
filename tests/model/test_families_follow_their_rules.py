"""The rules of refreshing, walked by a machine: a pure model and the real service take the same steps, and agree in every
answer, in what is stored, and in every audit event.

The model is ``identity.tokens.family``. ``MODEL_EXAMPLES`` says how many histories of 50 steps are walked (300).
"""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test
from model.histories import Histories
from model.steps import REFUSED, SUCCEEDED

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "300"))
STEPS = 50


@pytest.mark.timeout(3600)
def test_the_service_and_its_rules_agree_in_every_history(stepwise: Any) -> None:
    machine = type("HistoriesOfThisService", (Histories,), {"service": stepwise, "seen": set[str]()})
    run_state_machine_as_test(
        machine,
        settings=hypothesis.settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
    # Histories that never meet a rule say nothing of it.
    assert machine.seen == SUCCEEDED.keys() | REFUSED.keys()  # type: ignore[attr-defined]
