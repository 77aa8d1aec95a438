"""The OpenAPI 3.1 document, and the reference for people: bodies from pydantic models, the rest from tables.

    python -m sidejob.openapi     writes docs/openapi.json and docs/reference.md

No function imports this: each serves the part of the committed document that deploy/stage.py puts beside it.
"""
