"""Simulated nodes and relays, and real HAProxies, on loopback: the demo, and what tests start.

chain       what slot it is, and where a node's tip stands
node        a node that speaks the protocol, and can be told to misbehave
relay       a relay that sticks to its connections and writes down whom it reached
sessions    that log, and whether two producers were reached at once
control     how a running node, or the lab, is told things
process     a child process of the lab, from both ends
haproxy     real HAProxy processes
pool        all of them together, with a configuration for the controller
"""
