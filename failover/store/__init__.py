"""Where a pool's assignment, timers, requests, lease and journal live: one module a store, and what they share."""
