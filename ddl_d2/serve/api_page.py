"""The page that documents the service, made from its OpenAPI description; it works without a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddl_d2.report.html import escape, paragraph, section, table

_CURL = 'curl --data-binary @photo.jpg "http://127.0.0.1:8000/api/predict?name=photo.jpg"'


def api_page(description: Mapping[str, Any]) -> str:
    """The page as HTML; its style sheet is the service's."""
    parts = ["<h1>The service</h1>", paragraph(description["info"]["description"])]
    parts.append(section("One line", f"<pre>{escape(_CURL)}</pre>"))
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(f"{method.upper()} {path}", operation))
    parts.append('<p><a href="/openapi.json">openapi.json</a> says the same to programs. <a href="/">The page</a></p>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>ddl_d2: the service</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="/static/style.css"></head><body><main>\n'
        + "\n".join(parts)
        + "\n</main></body></html>"
    )


def _operation(name: str, operation: Mapping[str, Any]) -> str:
    parts = [paragraph(operation.get("summary", ""))]
    if operation.get("requestBody"):
        parts.append(paragraph("The body of the request is the file itself."))
    if operation.get("parameters"):
        rows = [(one["name"], one.get("description", "")) for one in operation["parameters"]]
        parts.append(table(("parameter", "meaning"), rows, caption="Parameters of the address"))
    answers = [(status, one["description"]) for status, one in operation["responses"].items()]
    parts.append(table(("status", "meaning"), answers, caption="Answers"))
    return section(name, *parts)
