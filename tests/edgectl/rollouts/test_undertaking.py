"""What was asked of a rollout survives its process."""

from agent_daemon.contract.wire import Outcome
from edgectl import manifest
from edgectl.rollouts.policy import Amount, Budget, OnHalt, Policy
from edgectl.rollouts.undertaking import Undertaking, asked

TEXT = """\
version: 1
name: office
devices: all
models: {chat: {source: 'file:m.gguf'}}
rollout:
  canary: 5%
  max_unavailable: 2
  order_by: ring
  budgets: {reverted: {most: 5%, after: 20}, unreachable: 3}
  on_halt: revert_wave
  min_healthy: 30s
  limit_rate: 20MiB
  swarm: site
hooks: {pre_deploy: 'sh -c "echo hello"', on_failure: [page, me]}
"""


def test_a_manifest_says_what_is_asked() -> None:
    found = asked(manifest.parse(TEXT, "m.yaml"), "/m", retry=True, limit_rate=1000.0)
    assert found == Undertaking(
        Policy(
            canary=Amount(percent=5.0),
            max_unavailable=Amount(count=2),
            order_by=("ring",),
            budgets={
                Outcome.REVERTED: Budget(Amount(percent=5.0), 20),
                Outcome.FAILED_UNCHANGED: Budget(Amount(count=0)),
                Outcome.REFUSED: Budget(),
                Outcome.UNREACHABLE: Budget(Amount(count=3)),
            },
            on_halt=OnHalt.REVERT_WAVE,
            min_healthy=30.0,
        ),
        retry=True,
        limit_rate=1000.0,
        swarm="site",
        hooks={"pre_deploy": ("sh", "-c", "echo hello"), "on_failure": ("page", "me")},
        folder="/m",
    )


def test_it_is_the_same_after_it_was_kept() -> None:
    found = asked(manifest.parse(TEXT, "m.yaml"), "/m", prune=True)
    assert Undertaking.from_json(found.to_json()) == found


def test_what_was_kept_by_an_older_version_has_defaults() -> None:
    assert Undertaking.from_json("{}") == Undertaking()
