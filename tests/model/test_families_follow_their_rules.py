"""The rules of refreshing, walked by a machine: a pure model and the real service take the same steps, and agree in every
answer, in what is stored, and in every audit event.

The model is ``identity.tokens.family``. ``MODEL_EXAMPLES`` says how many histories of 50 steps are walked (300).
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test
from model.histories import Histories
from model.steps import REFUSED, SUCCEEDED, Attempt

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "300"))
# What was walked is remembered, so as not to be walked again; of too many histories that is slow and large.
WALK = min(EXAMPLES, 1000)
STEPS = 50
NEWEST = Attempt(0, 0, "", "own", (), (), None, wrong_secret=False)


def machine(stepwise: Any) -> Any:
    return type("HistoriesOfThisService", (Histories,), {"service": stepwise, "seen": set[str]()})


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("walk", range(EXAMPLES // WALK))
def test_the_service_and_its_rules_agree_in_every_history(stepwise: Any, walk: int) -> None:
    del walk
    run_state_machine_as_test(
        machine(stepwise),
        settings=hypothesis.settings(
            max_examples=WALK,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )


def test_a_history_that_meets_every_rule(stepwise: Any) -> None:
    """What chance may leave out for once: the machine knows every verdict, and each is met here."""
    history = machine(stepwise)()
    for client in ("web", "other"):
        history.issue(subject=0, mobile=False, client=client)
    of_web, of_other = (replace(NEWEST, which=which) for which in (0, 1))
    history.refresh([of_web, replace(of_web, behind=1)])
    history.refresh([replace(of_web, wrong_secret=True), replace(of_web, scopes=("bank",))])
    history.refresh([replace(of_web, audience=("bank",)), replace(of_web, behind=-1), of_web])
    history.refresh([of_other, of_other, replace(of_other, behind=2)])
    history.time_passes(30_000)
    history.refresh([replace(of_web, behind=2), of_web, replace(of_other, client="another")])
    history.issue(subject=1, mobile=False, client="web")
    history.a_boundary_is_met(which=2, boundary="idle", before=False, attempt=NEWEST)
    assert history.seen == SUCCEEDED.keys() | REFUSED.keys()
