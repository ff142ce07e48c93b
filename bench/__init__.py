"""Speed and memory, each against something bare in the same run. ``bench/run.py`` prints them; nothing asserts them."""
