"""The OpenAPI document: schemas of the msgspec structs, one operation helper, a docs page.

FastAPI writes the document's frame and the routes; bodies and answers are our
structs, so their schemas are put in here.  Order entry and cancel bypass
FastAPI's routing, and are described all the same: their operations are merged.
"""

from typing import Any

import msgspec

from api.gateway import models

REF = "#/components/schemas/{name}"
PROBLEM = "ProblemDocument"
SECURITY: list[dict[str, list[str]]] = [{"bearer": []}]

_STRUCTS = [
    value
    for value in vars(models).values()
    if isinstance(value, type) and issubclass(value, msgspec.Struct) and value is not msgspec.Struct
]


def schemas() -> dict[str, Any]:
    """Component schemas of all request and answer structs."""
    return msgspec.json.schema_components(_STRUCTS, ref_template=REF)[1]


def _content(name: str, media: str = "application/json") -> dict[str, Any]:
    return {media: {"schema": {"$ref": REF.format(name=name)}}}


def operation(
    *,
    answer: type | None = None,
    request: type | None = None,
    status: int = 200,
    more: dict[int, type] | None = None,
    problems: tuple[int, ...] = (),
    parameters: tuple[dict[str, Any], ...] = (),
    secured: bool = True,
) -> dict[str, Any]:
    """The part of an operation that FastAPI cannot know."""
    responses: dict[str, Any] = {}
    for code, kind in {status: answer, **(more or {})}.items():
        responses[str(code)] = {"description": (kind.__doc__ or "").strip() if kind else "Done."}
        if kind is not None:
            responses[str(code)]["content"] = _content(kind.__name__)
    for code in sorted({*problems, *((401, 403) if secured else ())}):
        responses[str(code)] = {
            "description": "A problem with a stable code.",
            "content": _content(PROBLEM, "application/problem+json"),
        }
    document: dict[str, Any] = {"responses": responses}
    if request is not None:
        document["requestBody"] = {"required": True, "content": _content(request.__name__)}
    if parameters:
        document["parameters"] = list(parameters)
    if secured:
        document["security"] = SECURITY
    return document


def query(name: str, kind: str, description: str, **schema: Any) -> dict[str, Any]:
    """A query parameter."""
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": {"type": kind, **schema},
    }


def path(name: str, description: str) -> dict[str, Any]:
    """A path parameter."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "maxLength": 64},
    }


ORDER_ID = path("order_id", "As in the order: 812-5, 812 or q31.")

_TRADING = (400, 404, 409, 413, 422, 429, 500, 503, 504)

ENTRY_PATHS: dict[str, dict[str, Any]] = {
    "/v1/orders": {
        "post": {
            "summary": "Place an order",
            "description": "201 when it is live, durable; 202 when it is queued because the engine is down.",
            "operationId": "place_order",
            "tags": ["orders"],
            **operation(
                request=models.NewOrder,
                answer=models.Order,
                status=201,
                more={202: models.Order},
                problems=_TRADING,
            ),
        }
    },
    "/v1/orders/{order_id}": {
        "delete": {
            "summary": "Cancel an order",
            "description": "200 with its final state, also when it was finished before; 202 when queued.",
            "operationId": "cancel_order",
            "tags": ["orders"],
            **operation(
                answer=models.Order, more={202: models.Order}, problems=_TRADING, parameters=(ORDER_ID,)
            ),
        }
    },
}


def merge(document: dict[str, Any], *, with_entry: bool) -> dict[str, Any]:
    """FastAPI's document with our schemas, the bearer scheme and the order entry."""
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(schemas())
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    if with_entry:
        for route, operations in ENTRY_PATHS.items():
            document["paths"].setdefault(route, {}).update(operations)
    return document


DOCS_PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Holdfast API</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{background:#f3f3f3;border-radius:4px;padding:.1rem .3rem}pre{padding:.7rem;overflow:auto}
summary{cursor:pointer;padding:.3rem 0}b{display:inline-block;width:4.5rem}</style>
<h1>Holdfast API</h1><p>The truth is <a href="openapi.json">openapi.json</a>. Keys go into
<code>Authorization: Bearer hf_...</code>. The stream is a WebSocket at <code>/v1/stream</code>.</p>
<div id="o"></div>
<script>
const text=(e,s)=>{e.append(document.createTextNode(s));return e}, el=n=>document.createElement(n);
fetch('openapi.json').then(r=>r.json()).then(d=>{const out=document.getElementById('o');
const resolve=(s,n)=>{if(!s||n>6)return s;
if(s.$ref)return resolve(d.components.schemas[s.$ref.split('/').pop()],n+1);
if(Array.isArray(s))return s.map(x=>resolve(x,n+1));if(typeof s==='object')return Object.fromEntries(
Object.entries(s).map(([k,v])=>[k,resolve(v,n+1)]));return s};
for(const [path,ops] of Object.entries(d.paths))for(const [method,op] of Object.entries(ops)){
const box=el('details'),head=el('summary');
head.append(text(el('b'),method.toUpperCase()),text(el('code'),path));
text(head,' '+(op.summary||''));box.append(head);if(op.description)box.append(text(el('p'),op.description));
for(const p of op.parameters||[])box.append(text(el('p'),p.in+' '+p.name+': '+(p.description||'')));
const show=(t,c)=>{if(!c)return;box.append(text(el('h4'),t));
box.append(text(el('pre'),JSON.stringify(resolve(Object.values(c)[0].schema,0),null,2)))};
show('Request',op.requestBody&&op.requestBody.content);
for(const [code,r] of Object.entries(op.responses||{}))show(code+' '+(r.description||''),r.content);
out.append(box)}});
</script></html>"""
