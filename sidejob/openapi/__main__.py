"""Writes what docs/ has of the contract."""

from pathlib import Path

from sidejob.openapi import document, reference

DOCS = Path(__file__).parents[2] / "docs"

(DOCS / "openapi.json").write_text(document.text())
(DOCS / "reference.md").write_text(reference.text())
