"""The baseline of the gateway: the same order, validated and answered, and nothing behind it.

Idiomatic FastAPI + pydantic, on the server settings that the gateway uses.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Literal

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field

app = FastAPI()


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    idempotency_key: str = Field(max_length=64)
    symbol: str
    side: Literal["buy", "sell"]
    type: Literal["limit", "market"]
    quantity: Decimal = Field(gt=0)
    price: Decimal | None = Field(default=None, gt=0)
    time_in_force: Literal["gtc", "ioc", "fok"] = "gtc"


class Answer(BaseModel):
    order_id: str
    symbol: str
    side: str
    type: str
    status: str
    quantity: Decimal
    price: Decimal | None


def answer(order: Order) -> Answer:
    return Answer(
        order_id="1-1",
        symbol=order.symbol,
        side=order.side,
        type=order.type,
        status="NEW",
        quantity=order.quantity,
        price=order.price,
    )


@app.post("/v1/orders", status_code=201)
async def place(order: Order) -> Answer:
    return answer(order)


@app.websocket("/v1/stream")
async def stream(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            message = await socket.receive_json()
            number = message.pop("id")
            del message["op"]
            order = answer(Order.model_validate(message))
            await socket.send_json({"id": number, "order": order.model_dump(mode="json")})
    except WebSocketDisconnect:
        return


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning",
        ws="websockets-sansio", ws_per_message_deflate=False,
    )  # fmt: skip
