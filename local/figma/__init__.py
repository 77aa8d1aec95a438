"""The local stack's Figma: the documented REST API over real HTTP, with its limits and its ways to fail.

It stands in where the real one cannot be had. What it does is what Figma's documents and its users' reports
say: tiers and leaky buckets, render time-outs, nulls, presigned addresses on a second origin, error shapes.
"""
