"""The controller on a simulated clock: the same code, another ``Host``, and a run that a seed repeats exactly.

``loop`` is the event loop with virtual time, ``host`` is time and chance of one simulated machine on it. Standard
library only, and nothing here touches a socket, a thread, the real clock or real chance.
"""
