"""What an agent can do beyond the first version of the messages. One place; a control side asks before it uses one.

A new message or a new field with a default needs no word here unless the control side has to know that it is understood.
"""

FEATURES = (
    "receive",  # `edgectl-agent receive`: a blob's bytes through an exec channel
    "prune",  # GET /v1/prunable, POST /v1/prune, `prune` in a StageRequest, `DeviceState.disk`
    "damaged",  # `DeviceState.damaged`
    "drift",  # `DeviceState.drift`, `Heartbeat.drift`
)
