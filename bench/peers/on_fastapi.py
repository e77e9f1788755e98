"""FastAPI on uvicorn: the model in the event loop, and in the thread pool."""

from typing import Any

from fastapi import FastAPI
from peer_model import network_of_records, trees_of_records
from pydantic import BaseModel

trees, network = trees_of_records(), network_of_records()
app = FastAPI()


class Body(BaseModel):
    records: list[dict[str, Any]]


class Answer(BaseModel):
    risks: list[float]


@app.post("/async/trees")
async def async_trees(body: Body) -> Answer:
    return Answer(risks=trees(body.records))


@app.post("/async/network")
async def async_network(body: Body) -> Answer:
    return Answer(risks=network(body.records))


@app.post("/threads/trees")
def threads_trees(body: Body) -> Answer:
    return Answer(risks=trees(body.records))


@app.post("/threads/network")
def threads_network(body: Body) -> Answer:
    return Answer(risks=network(body.records))
