"""How a rollout goes: what decides (PURE, with `edgectl.rollout`), what carries it out, and the record around it."""
