"""The node-to-node protocol, as far as a ping needs it.

    errors      every way in which a peer can be wrong
    cbor        strict, bounded reading of CBOR that arrives in pieces
    mux         frames: an 8-byte header and a payload
    handshake  keepalive  chainsync        the messages of three mini-protocols
    client  server                         one connection, from either end: bytes in, events out
    networks                               magic numbers of the public networks
    failures                               what ended a ping, in words
    ping        the only module here that touches sockets

All but ``ping`` are sans-IO: no sockets, no clock, no asyncio. Nothing here imports a dependency but cbor2.
"""
