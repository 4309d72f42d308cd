-- The inventory's query interface. These views are what `edgectl query`, datasette or any SQL client should read;
-- their column names stay, the tables under them may change. They are dropped and made again by every migration.
-- Times are seconds since the epoch (UTC), by this side's clock unless the column says `sent`. Sizes are bytes.
-- NULL means unknown.

-- devices: one row per device; what it is.
--   name, labels (JSON object), transport (JSON object), agent_id, added_at, last_seen
--   unreachable_since, unreachable_reason   since when it does not answer, and why (NULL: it was heard of since)
--   token_expires_at   until when it may report to a hub by itself (NULL: it has no token)
--   hostname, os, cpu_model, cpu_threads, ram_total, ram_available
--   gpus (names), vram_total, vram_free   sums over its GPUs
--   backends        what its runtime was built with, such as `cpu,cuda`
--   gpu_note        why a GPU that is there does not count
--   simulated_offload  1 under the test switch: offload is reported, not performed
--   agent_version, gateway_url, facts_at
CREATE VIEW devices AS
SELECT d.name, d.labels, d.transport, d.agent_id, d.added_at, d.last_seen,
       d.unreachable_since, d.unreachable_reason,
       (SELECT max(t.expires_at) FROM device_token t WHERE t.device_id = d.id) AS token_expires_at,
       f.hostname, f.os, f.cpu_model, f.cpu_threads, f.ram_total, f.ram_available,
       f.gpus, f.vram_total, f.vram_free, f.backends, f.gpu_note, f.simulated_offload,
       f.agent_version, f.gateway_url, f.received_at AS facts_at
FROM device d
LEFT JOIN device_facts f ON f.device_id = d.id
WHERE d.removed_at IS NULL;

-- device_status: one row per device; how it is doing.
--   name, labels (JSON object)
--   state           serving         every worker is ready
--                   degraded        a release is active, but a worker is not ready
--                   staging, activating, reverting   something is on its way
--                   reverted        it went back to its previous release by itself
--                   revert_failed   it could not go back: look at it
--                   never_deployed  it answers, and serves nothing
--                   unreachable     it was asked and did not answer, and was not heard of since
--                   stale           not heard of for a day (last_seen)
--                   unknown         never heard of
--   known_state     the state by the device's own last account: the same word, but for `unreachable` and `stale`
--   unreachable_since, unreachable_reason   the beginning of the silence, and why, when last asked
--   attention       1 when somebody should look: any state that is wrong, a last outcome that is, or drift
--   drift           what is otherwise than it should be, in words: an edited unit, a missing or damaged file, another
--                   version of the agent than was installed, another release than the last one that came to it by a
--                   rollout (NULL: nothing). `edgectl deploy --repair` mends it
--   release (`r12`), release_number, release_digest   what is active, by the device's own account
--   models (names, comma-separated), memory (`vram`, `ram`, or both: where they are)
--   predicted_bytes, measured_bytes   of the memory chosen, over all workers
--   workers_total, workers_ready   of those that should be in memory now: not what a request would load first
--   tokens_per_second (best of its workers), problem (a worker's error)
--   reports_dropped   reports that the device had to throw away since nobody collected them (NULL: no heartbeat yet)
--   requests, failures, prompt_tokens, completion_tokens   since the device was added
--   outcome, outcome_reason, outcome_release, outcome_at   the latest rollout on this device
--   pending_release (`r12`)   what could not be brought to it, and comes with `rollout resume` or from the hub
--   last_seen, heartbeat_sent_at (the device's clock), agent_version, gpus, gpu_note, simulated_offload, gateway_url
CREATE VIEW device_status AS
SELECT s.name, s.labels, s.state, s.known_state, s.unreachable_since, s.unreachable_reason,
       s.state NOT IN ('serving', 'never_deployed', 'staging', 'activating')
         OR coalesce(s.outcome, '') IN ('failed_unchanged', 'reverted', 'revert_failed', 'refused', 'unreachable')
         OR s.drift IS NOT NULL
         AS attention,
       s.release, s.release_number, s.release_digest, s.models, s.memory, s.predicted_bytes, s.measured_bytes,
       s.workers_total, s.workers_ready, s.tokens_per_second, s.problem, s.reports_dropped,
       s.requests, s.failures, s.prompt_tokens, s.completion_tokens,
       s.outcome, s.outcome_reason, s.outcome_release, s.outcome_at, s.pending_release, s.drift,
       s.last_seen, s.heartbeat_sent_at, s.agent_version, s.gpus, s.gpu_note, s.simulated_offload, s.gateway_url
FROM (
  SELECT k.*,
         CASE
           WHEN k.unreachable_since IS NOT NULL THEN 'unreachable'
           WHEN k.last_seen < CAST(strftime('%s', 'now') AS INTEGER) - 86400 THEN 'stale'
           ELSE k.known_state
         END AS state
  FROM (
  SELECT d.name, d.labels, d.unreachable_since, d.unreachable_reason,
         CASE
           WHEN d.last_seen IS NULL THEN 'unknown'
           WHEN h.state IN ('activating', 'probing') THEN 'activating'
           WHEN h.state IN ('reverting', 'reverted', 'revert_failed') THEN h.state
           WHEN h.active_digest IS NOT NULL AND h.models IS NOT NULL AND h.workers_ready = h.workers_total
             THEN 'serving'
           WHEN h.active_digest IS NOT NULL THEN 'degraded'
           WHEN h.state IN ('staging', 'staged') THEN 'staging'
           ELSE 'never_deployed'
         END AS known_state,
         'r' || h.active_number AS release, h.active_number AS release_number, h.active_digest AS release_digest,
         h.models, h.memory, h.predicted_bytes, h.measured_bytes,
         h.workers_total, h.workers_ready, h.tokens_per_second, h.problem, h.reports_dropped,
         coalesce(u.requests, 0) AS requests, coalesce(u.failures, 0) AS failures,
         coalesce(u.prompt_tokens, 0) AS prompt_tokens, coalesce(u.completion_tokens, 0) AS completion_tokens,
         o.outcome, o.reason AS outcome_reason, 'r' || o.release_number AS outcome_release, o.at AS outcome_at,
         (SELECT 'r' || p.release_number FROM rollout_outcome p
            JOIN rollout r ON r.id = p.rollout_id AND r.owner_user IS NOT NULL
                          AND r.state IN ('running', 'waiting', 'finished')
           WHERE p.device_id = d.id AND p.outcome IN ('unreachable', 'deferred') LIMIT 1) AS pending_release,
         nullif(rtrim(
           coalesce(h.drift || '; ', '')
           || CASE WHEN d.agent_build <> f.agent_build
                THEN 'the agent is ' || f.agent_build || ', installed was ' || d.agent_build || '; ' ELSE '' END
           || coalesce((SELECT 'it serves ' || coalesce('r' || h.active_number, 'nothing') || ', brought was r'
                               || w.release_number || '; '
                          FROM rollout_outcome w
                          JOIN device_release x ON x.release_number = w.release_number AND x.device_id = w.device_id
                         WHERE w.id = (SELECT max(b.id) FROM rollout_outcome b
                                        WHERE b.device_id = d.id AND b.outcome IN ('succeeded', 'unchanged'))
                           AND x.digest IS NOT h.active_digest AND h.received_at > w.at), ''), '; '), '') AS drift,
         d.last_seen, h.sent_at AS heartbeat_sent_at, f.agent_version, f.gpus, f.gpu_note,
         coalesce(h.simulated_offload, f.simulated_offload, 0) AS simulated_offload, f.gateway_url
  FROM device d
  LEFT JOIN device_heartbeat h ON h.device_id = d.id
  LEFT JOIN device_facts f ON f.device_id = d.id
  LEFT JOIN device_usage u ON u.device_id = d.id
  LEFT JOIN rollout_outcome o ON o.id = (SELECT max(l.id) FROM rollout_outcome l WHERE l.device_id = d.id)
  WHERE d.removed_at IS NULL
  ) k
) s;

-- release_status: one row per release.
--   release (`r12`), number, manifest, digest (of its content), created_at
--   devices   how many it was resolved for;  active   how many say that they serve it now
CREATE VIEW release_status AS
SELECT 'r' || r.number AS release, r.number, r.manifest, r.digest, r.created_at,
       (SELECT count(*) FROM device_release x JOIN device d ON d.id = x.device_id
         WHERE x.release_number = r.number AND d.removed_at IS NULL) AS devices,
       (SELECT count(*) FROM device_heartbeat h
          JOIN device d ON d.id = h.device_id AND d.removed_at IS NULL
          JOIN device_release x ON x.release_number = r.number AND x.device_id = h.device_id
         WHERE h.active_number = r.number AND h.active_digest = x.digest) AS active
FROM release r;

-- rollout_history: one row per rollout and device (one row with NULLs while a rollout has no device).
--   rollout, kind (deploy, rollback), manifest, started_at, finished_at (when its last process stopped)
--   state           running, paused, halted, waiting (the rest is to get it later), finished, aborted
--                   interrupted     its process ended before it, or gave no sign of life for a minute
--   device, wave (from 0), release (`r12`; what this device was asked to serve), previous (`r11`; what it served before)
--   outcome (NULL while it has not ended), reason, bytes_moved, seconds, at
CREATE VIEW rollout_history AS
SELECT r.id AS rollout, r.kind,
       CASE WHEN r.state = 'running' AND (r.heartbeat_at IS NULL
                 OR abs(CAST(strftime('%s', 'now') AS INTEGER) - r.heartbeat_at) > 60)
            THEN 'interrupted' ELSE r.state END AS state,
       coalesce(r.manifest, l.manifest) AS manifest, r.started_at, r.finished_at,
       d.name AS device, p.wave, 'r' || coalesce(o.release_number, p.release_number, r.release_number) AS release,
       'r' || p.previous_number AS previous, o.outcome, o.reason, o.bytes_moved, o.seconds, o.at
FROM rollout r
LEFT JOIN rollout_part p ON p.rollout_id = r.id
LEFT JOIN rollout_outcome o ON o.rollout_id = p.rollout_id AND o.device_id = p.device_id
LEFT JOIN device d ON d.id = p.device_id
LEFT JOIN release l ON l.number = coalesce(o.release_number, p.release_number, r.release_number);

-- rollout_status: one row per rollout; how it stands.
--   rollout, kind (deploy, rollback), state (as in rollout_history), state_reason
--   release (`r12`; NULL when devices went to different ones), manifest, manifest_digest, policy (JSON object)
--   owner_user, owner_host, owner_pid, owner_came_from   who leads it, or last did (NULL: made by an older edgectl)
--   heartbeat_at    its owner's latest sign of life
--   started_at, finished_at (when its last process stopped)
--   devices, waves  how many;  wave   the first one in which a device has not ended (NULL: all have)
--   ended           devices that have an outcome;  pending   of these, the ones that are to get it later
--   succeeded, unchanged, failed_unchanged, reverted, revert_failed, refused, unreachable, deferred, superseded
--                   devices by outcome
--   bytes_moved
CREATE VIEW rollout_status AS
SELECT r.id AS rollout, r.kind,
       CASE WHEN r.state = 'running' AND (r.heartbeat_at IS NULL
                 OR abs(CAST(strftime('%s', 'now') AS INTEGER) - r.heartbeat_at) > 60)
            THEN 'interrupted' ELSE r.state END AS state,
       r.state_reason, 'r' || r.release_number AS release, r.manifest, r.manifest_digest, r.policy,
       r.owner_user, r.owner_host, r.owner_pid, r.owner_came_from, r.heartbeat_at, r.started_at, r.finished_at,
       count(p.device_id) AS devices, count(DISTINCT p.wave) AS waves,
       min(CASE WHEN o.outcome IS NULL THEN p.wave END) AS wave,
       count(o.outcome) AS ended,
       coalesce(sum(o.outcome IN ('unreachable', 'deferred')), 0) AS pending,
       coalesce(sum(o.outcome = 'succeeded'), 0) AS succeeded, coalesce(sum(o.outcome = 'unchanged'), 0) AS unchanged,
       coalesce(sum(o.outcome = 'failed_unchanged'), 0) AS failed_unchanged,
       coalesce(sum(o.outcome = 'reverted'), 0) AS reverted,
       coalesce(sum(o.outcome = 'revert_failed'), 0) AS revert_failed,
       coalesce(sum(o.outcome = 'refused'), 0) AS refused, coalesce(sum(o.outcome = 'unreachable'), 0) AS unreachable,
       coalesce(sum(o.outcome = 'deferred'), 0) AS deferred, coalesce(sum(o.outcome = 'superseded'), 0) AS superseded,
       coalesce(sum(o.bytes_moved), 0) AS bytes_moved
FROM rollout r
LEFT JOIN rollout_part p ON p.rollout_id = r.id
LEFT JOIN rollout_outcome o ON o.rollout_id = p.rollout_id AND o.device_id = p.device_id
GROUP BY r.id;

-- audit_log: who did what; one row for each time, and none is ever changed.
--   id (rises), at, action (deploy, rollback, resume, abort, ...), user, host, pid, came_from (an address, or a terminal)
--   rollout, manifest (its name), manifest_digest, detail
CREATE VIEW audit_log AS
SELECT a.id, a.at, a.action, a.user, a.host, a.pid, a.came_from, a.rollout_id AS rollout, a.manifest, a.manifest_digest,
       a.detail
FROM audit a;

-- usage_by_minute: one row per minute (its start), model, adapter, API key, release and device; also of devices since
-- removed.
--   minute, model, adapter ('' for none), key_id (of the API key; '' where none was needed), release (`r12`), device
--   requests, failures, prompt_tokens, cached_tokens (those of them that need not be computed), completion_tokens
--   ttft_ms, duration_ms, queue_ms   sums over the requests: divide by `requests` for a mean
--   finish_stop, finish_length, finish_tool_calls, finish_cancelled, finish_error   requests by how they ended
--   ttft_histogram, inter_token_histogram, queue_histogram   JSON arrays of counts that add up, place by place: requests
--                   by their seconds to the first token, from token to token (mean), and until a sequence was free.
--                   What the places stand for is in usage_times.
--   Agents before these were counted left queue_ms, finish_… and the histograms at 0.
CREATE VIEW usage_by_minute AS
SELECT u.minute, u.model, u.adapter, u.key_id, 'r' || u.release_number AS release, d.name AS device,
       u.requests, u.failures, u.prompt_tokens, u.cached_tokens, u.completion_tokens,
       u.ttft_ms, u.duration_ms, u.queue_ms,
       u.finish_stop, u.finish_length, u.finish_tool_calls, u.finish_cancelled, u.finish_error,
       u.ttft_histogram, u.inter_token_histogram, u.queue_histogram
FROM usage u
JOIN device d ON d.id = u.device_id;

-- usage_by_model: one row per model; all time, all devices, with and without adapters.
--   model, devices (how many served it), adapters (how many were asked for), keys (how many asked)
--   requests, failures, prompt_tokens, cached_tokens, completion_tokens, ttft_ms, duration_ms, queue_ms,
--   finish_stop, finish_length, finish_tool_calls, finish_cancelled, finish_error   sums
--   first_minute, last_minute
CREATE VIEW usage_by_model AS
SELECT u.model, count(DISTINCT u.device_id) AS devices, count(DISTINCT nullif(u.adapter, '')) AS adapters,
       count(DISTINCT nullif(u.key_id, '')) AS keys,
       sum(u.requests) AS requests, sum(u.failures) AS failures,
       sum(u.prompt_tokens) AS prompt_tokens, sum(u.cached_tokens) AS cached_tokens,
       sum(u.completion_tokens) AS completion_tokens,
       sum(u.ttft_ms) AS ttft_ms, sum(u.duration_ms) AS duration_ms, sum(u.queue_ms) AS queue_ms,
       sum(u.finish_stop) AS finish_stop, sum(u.finish_length) AS finish_length,
       sum(u.finish_tool_calls) AS finish_tool_calls, sum(u.finish_cancelled) AS finish_cancelled,
       sum(u.finish_error) AS finish_error,
       min(u.minute) AS first_minute, max(u.minute) AS last_minute
FROM usage u
GROUP BY u.model;

-- usage_times: the histograms taken apart; one row per model, what was measured, and bucket; all time, all devices.
--   model
--   measured   ttft (to the first token), inter_token (from token to token, a request's mean), queue (until a sequence
--              was free)
--   bucket (its place, from 0), above, up_to   seconds: above the one, up to the other (NULL: however many)
--   requests   in this bucket, not counting those before it
CREATE VIEW usage_times AS
WITH bound (bucket, above, up_to) AS (
  VALUES (0, 0, 0.002), (1, 0.002, 0.005), (2, 0.005, 0.01), (3, 0.01, 0.02), (4, 0.02, 0.05), (5, 0.05, 0.1),
         (6, 0.1, 0.2), (7, 0.2, 0.5), (8, 0.5, 1), (9, 1, 2), (10, 2, 5), (11, 5, 10), (12, 10, 20), (13, 20, 50),
         (14, 50, 100), (15, 100, 300), (16, 300, NULL)
), counted (model, measured, bucket, requests) AS (
  SELECT u.model, 'ttft', j.key, sum(j.value) FROM usage u, json_each(u.ttft_histogram) j GROUP BY 1, 3
  UNION ALL
  SELECT u.model, 'inter_token', j.key, sum(j.value) FROM usage u, json_each(u.inter_token_histogram) j GROUP BY 1, 3
  UNION ALL
  SELECT u.model, 'queue', j.key, sum(j.value) FROM usage u, json_each(u.queue_histogram) j GROUP BY 1, 3
)
SELECT c.model, c.measured, c.bucket, b.above, b.up_to, c.requests
FROM counted c
JOIN bound b ON b.bucket = c.bucket;

-- fits: one row per load of a model on a device, as far as the device told: its memory, predicted and then measured. The
-- newest 300 of each device are kept; also of devices since removed.
--   device, model, device_class (what such figures are learned for: `NVIDIA L4, cuda`, or `RAM, x86_64`)
--   memory (`vram` or `ram`), gpu_layers, gpus (how many it is split over), context, parallel, kv_type
--   predicted, planned (by llama.cpp, before the weights were loaded), measured   bytes of that memory
--   excess          measured beyond what was predicted: on a GPU the context that each process opens there is in it
--   error_percent   predicted against measured, in percent of what was measured; negative: too little was predicted
--   loaded_in       seconds
--   sent_at (the device's clock), received_at
CREATE VIEW fits AS
SELECT d.name AS device, f.model, f.device_class, f.memory, f.gpu_layers, f.gpus, f.context, f.parallel, f.kv_type,
       f.predicted, f.planned, f.measured, f.measured - f.predicted AS excess,
       round((f.predicted - f.measured) * 100.0 / nullif(f.measured, 0), 2) AS error_percent,
       f.loaded_in, f.at AS sent_at, f.received_at
FROM fitted f
JOIN device d ON d.id = f.device_id;

-- events: what devices told, each once.
--   device, kind (activation, worker, rejected), sent_at (the device's clock), received_at
--   subject (`r12`, a model's name, or the kind of record), what (a state, started/ready/crashed/stopped)
--   outcome (on the last event of an activation), detail
CREATE VIEW events AS
SELECT d.name AS device, 'activation' AS kind, a.at AS sent_at, a.received_at, 'r' || a.release_number AS subject,
       a.state AS what, a.outcome, a.detail
FROM activation_event a JOIN device d ON d.id = a.device_id
UNION ALL
SELECT d.name, 'worker', w.at, w.received_at, w.model, w.what, NULL, w.detail
FROM worker_event w JOIN device d ON d.id = w.device_id
UNION ALL
SELECT d.name, 'rejected', NULL, x.received_at, x.kind, 'rejected', NULL, x.reason
FROM rejected_record x JOIN device d ON d.id = x.device_id;
