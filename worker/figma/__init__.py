"""Figma jobs: exports, snapshots, tokens, fills and comments over Figma's REST API."""
