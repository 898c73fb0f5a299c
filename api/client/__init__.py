"""The async Python client of a venue.

async with Client("http://127.0.0.1:8400", key) as client:
    order = await client.place_order("BTC/USDT", "buy", "limit", quantity="0.5", price="59000.00")
    await client.cancel_order(order.order_id)
"""

from api.client.client import Client
from api.client.errors import ClientError, OutcomeUnknown, RequestRefused, StreamClosed, Unavailable
from api.client.models import Balance, Book, Fill, Order, Trade
from api.client.stream import Stream

__all__ = [
    "Balance",
    "Book",
    "Client",
    "ClientError",
    "Fill",
    "Order",
    "OutcomeUnknown",
    "RequestRefused",
    "Stream",
    "StreamClosed",
    "Trade",
    "Unavailable",
]
