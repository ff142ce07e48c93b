"""Topology files of cardano-node: read, looked through for leaks, and written from the pool's file.

document.py   JSON text -> a checked value, with everything that is wrong with it
paths.py      which producer an address leads to, and what shuts that producer out
leaks.py      ways by which a producer's blocks go around the pool's gates
render.py     the file of one producer or relay

All of it is pure: texts and values in, texts and values out.
"""
