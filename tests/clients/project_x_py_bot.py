"""project-x-py: its client, order manager and both hubs. It takes addresses from a configuration that is passed to it."""

import asyncio
import os

from project_x_py import ProjectX, ProjectXRealtimeClient
from project_x_py.models import ProjectXConfig
from project_x_py.event_bus import EventBus
from project_x_py.order_manager import OrderManager
from said import say

CONTRACT = "CON.F.US.EP.Z26"
PATIENCE = 20
env = os.environ
config = ProjectXConfig(
    api_url=f"{env['REST']}/api",
    user_hub_url=f"{env['HUB']}/user",
    market_hub_url=f"{env['HUB']}/market",
)


async def expect(queue, fits=lambda data: True):
    while True:
        told = await asyncio.wait_for(queue.get(), PATIENCE)
        data = told.get("data", told)
        # Quotes come as the contract and, below `data`, what it was told.
        if fits(data):
            return data


async def main():
    orders, quotes = asyncio.Queue(), asyncio.Queue()
    async with ProjectX(env["USER_NAME"], env["API_KEY"], config=config) as client:
        await client.authenticate()
        account = client.account_info.id
        say("account", account)
        realtime = ProjectXRealtimeClient(client.session_token, str(account), config=config)
        await realtime.add_callback("order_update", orders.put)
        await realtime.add_callback("quote_update", quotes.put)
        assert await realtime.connect(), "the hubs did not open"
        assert await realtime.subscribe_user_updates()
        assert await realtime.subscribe_market_data([CONTRACT])
        await expect(quotes)
        say("quote")
        manager = OrderManager(client, EventBus())
        for number in range(3):
            if number:
                await asyncio.sleep(float(env["PAUSE"]))
            placed = (await manager.place_limit_order(CONTRACT, side=0, size=1, limit_price=6400.25)).orderId
            say("placed", placed)
            await expect(orders, lambda data: data["id"] == placed and data["status"] == 1)
            say("order open", placed)
            assert await manager.cancel_order(placed)
            await expect(orders, lambda data: data["id"] == placed and data["status"] == 3)
            say("order canceled", placed)
        await realtime.disconnect()
    say("done")
    # The library leaves tasks behind.
    os._exit(0)


asyncio.run(main())
