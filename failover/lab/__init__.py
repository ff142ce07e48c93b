"""Simulated nodes and relays, and real HAProxies, on loopback: the demo, and what tests start.

chain       what slot it is, and where a node's tip stands
node        a node that speaks the protocol, and can be told to misbehave
relay       a relay that sticks to its connections and writes down whom it reached
resolution  what a node makes of the answers to a name
sessions    that log, and whether two producers were reached at once
control     how a running node, or the lab, is told things
process     a child process of the lab, from both ends
haproxy     real HAProxy processes
zone        a hosted zone with Route 53's rules; route53 its API, names its DNS servers, resolver a cache
            (route53_xml the documents; httpport and dnsport the listening; commands what they can be told)
pool        all of them together, with a configuration for the controller
story       what a story is told with; play, acts how, scenes_proxies and scenes_names the two that are told,
            witness and name_witness what is seen from outside, verdict what that adds up to
"""
