"""MiniGrid on device: the core of the rules, views, levels of every task, and pictures. ``world.minigrid`` is the builder."""
