"""The routes; promise: each answer, and each failure, is in the OpenAPI document that /docs shows offline.

A consumer-only instance has all of them but those that take orders.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Final, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import JSONResponse

from orders import docs, problems, schemas
from orders.body import read_json_body
from orders.docs import declares
from orders.guard import Guard
from orders.model import MalformedBodyError, ValidationError, WrongShapeError, read_submission
from orders.problems import ProblemError, kafka_unavailable, not_sent, topic_missing
from orders.service import OrdersService
from orders.state import Counters, iso
from relance import DeadLetter, RelanceError, SendError, TopicMissingError

MAX_BATCH: Final = 10_000
MAX_DLT_MESSAGES: Final = 100
MAX_SHOWN_VALUE: Final = 4096


def create_api(service: OrdersService, on_end: Callable[[], None] = lambda: None) -> FastAPI:
    """The ASGI application around `service`. `on_end` is called if the service ends without being asked."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = service.start()
        running.add_done_callback(lambda _: on_end())
        try:
            yield
        finally:
            await service.stop()

    settings = service.settings
    api = FastAPI(
        title=f"Orders ({settings.role})",
        version="1",
        description=f"Group `{settings.group_id}`, topics `{settings.topic}`, `{settings.retry_topic}`, "
        f"`{settings.dlt_topic}`.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page takes its files from a CDN; ours are in static/
        redoc_url=None,
        separate_input_output_schemas=False,
        redirect_slashes=False,
    )
    problems.install(api)
    api.add_middleware(Guard)
    if settings.role == "api":
        api.include_router(_orders(service))
    api.include_router(_flag(service))
    api.include_router(_numbers(service))
    docs.install(api)
    return api


def _orders(service: OrdersService) -> APIRouter:
    router = APIRouter(prefix="/api/v1/orders", tags=["orders"])

    @router.post(
        "",
        summary="Send one order",
        response_model=schemas.Accepted,
        responses={
            **declares(403, 408, 413, 415, 422, 503),
            400: {
                "description": "A rule of the business is broken, and the order is in the dead-letter topic "
                "(application/json); or the body is not JSON, and nothing was written (problem+json)",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Rejected"}},
                    problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}},
                },
            },
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}},
            }
        },
    )
    async def create_order(request: Request) -> JSONResponse:
        """Write the order to the topic, keyed by `orderId`, and answer once the broker has acknowledged it.

        A name that stands twice in one object is refused (400): two readers could see two orders. Fields
        that are not declared are kept. An `orderId` of white space only is empty.
        """
        body = await read_json_body(request)
        try:
            submission = read_submission(body)
            submission.order.check()
        except MalformedBodyError as error:
            raise ProblemError(
                400, str(error), kind="malformed-body", title="The body can't be read"
            ) from None
        except WrongShapeError as error:
            raise ProblemError(
                422, str(error), kind="not-an-order", title="Not an order", extra={"field": error.field}
            ) from None
        except ValidationError as error:
            _check_connected(service, writes=True)
            try:
                await service.reject(body, submission, error)
            except (SendError, TimeoutError) as failure:
                raise not_sent(
                    failure, "the dead letter for the refused order", service.missing_topics()
                ) from failure
            answer = schemas.Rejected(
                orderId=submission.order.order_id if submission.has_order_id else None,
                error=f"Validation failed: {error.reason}",
            )
            return JSONResponse(answer.model_dump(), status_code=400)
        _check_connected(service, writes=True)
        try:
            sent = await service.accept(submission)
        except (SendError, TimeoutError) as failure:
            raise not_sent(failure, "the order", service.missing_topics()) from failure
        return JSONResponse(
            schemas.Accepted(
                orderId=submission.order.order_id,
                partition=sent.partition,
                offset=sent.offset,
                message=f"Order written to {sent.topic}",
            ).model_dump()
        )

    @router.post(
        "/batch",
        summary="Send made-up orders",
        response_model=schemas.BatchAccepted,
        responses=declares(403, 422, 503),
    )
    async def create_batch(
        count: Annotated[int, Query(ge=1, le=MAX_BATCH, description="how many")] = 10,
    ) -> JSONResponse:
        """Write `count` good orders and answer once all are acknowledged.

        If some are not, the answer is 503 and says how many were: `accepted`.
        """
        _check_connected(service, writes=True)
        batch = await service.accept_batch(count)
        if batch.failures:
            problem = not_sent(
                batch.failures[0], f"{count - batch.accepted} of {count} orders", service.missing_topics()
            )
            problem.extra |= {
                "batchId": batch.batch_id,
                "accepted": batch.accepted,
                "orderMayHaveBeenWritten": any(map(problems.maybe_written, batch.failures)),
            }
            raise problem
        return JSONResponse(
            schemas.BatchAccepted(
                batchId=batch.batch_id,
                count=count,
                partitions={str(partition): number for partition, number in batch.partitions.items()},
                message=f"{count} orders written to {service.settings.topic}",
            ).model_dump()
        )

    return router


def _flag(service: OrdersService) -> APIRouter:
    router = APIRouter(prefix="/api/v1/config", tags=["labs"])

    @router.get(
        "/simulate-transient-error",
        summary="Whether failures are simulated",
        response_model=schemas.Simulation,
        responses=declares(503),
    )
    async def read_simulation() -> schemas.Simulation:
        """Whether transient errors are being simulated, as this instance knows it."""
        _check_connected(service)
        enabled = service.flag.enabled
        return schemas.Simulation(simulateTransientError=enabled, message=_simulation_text(enabled))

    @router.post(
        "/simulate-transient-error",
        summary="Switch simulated failures on or off",
        response_model=schemas.Simulation,
        responses=declares(403, 422, 503),
    )
    async def write_simulation(
        enabled: Annotated[Literal["true", "false"], Query(description="on or off")],
    ) -> schemas.Simulation:
        """Switch the simulation for every consumer of the group.

        An order that is sent after this answer sees it, whichever instance took the switch or the order.
        """
        _check_connected(service)
        try:
            seen = await service.set_flag(enabled == "true")
        except (SendError, TimeoutError) as failure:
            raise _no_answer(failure) from failure
        text = _simulation_text(enabled == "true")
        if not seen:
            text += "; an order API has not confirmed it yet"
        return schemas.Simulation(simulateTransientError=enabled == "true", message=text)

    return router


def _numbers(service: OrdersService) -> APIRouter:
    router = APIRouter()
    settings = service.settings

    @router.get("/api/v1/stats", summary="The group's numbers", tags=["monitoring"], responses=declares(503))
    async def stats() -> schemas.GroupStats:
        """The whole group's numbers; see the schema for what each one counts."""
        _check_connected(service)
        return _group_stats(service)

    @router.get("/api/v1/consumer/stats", summary="This instance's numbers", tags=["monitoring"])
    async def consumer_stats() -> schemas.ConsumerStats:
        """This process's numbers since it started."""
        own = service.stats()
        counters = service.counted()
        partitions = service.partitions()
        return schemas.ConsumerStats(
            instance=settings.instance,
            role=settings.role,
            messagesProcessed=own.handled + own.dead_lettered,
            success=counters.success,
            errors=counters.errors,
            retries=counters.retries,
            dlt=counters.dlt,
            inFlight=own.in_flight,
            waiting=own.waiting,
            partitionsAssigned=len(partitions),
            partitions=partitions,
            rebalanceCount=own.rebalances,
            lastRebalanceTime=None if own.last_rebalance is None else iso(own.last_rebalance),
            circuitBreakerOpen=False,
        )

    @router.get("/api/v1/partitions", summary="This instance's partitions", tags=["monitoring"])
    async def partitions() -> schemas.Partitions:
        """The partitions of the orders topic that this instance owns now."""
        owned = service.partitions()
        return schemas.Partitions(partitions=owned, count=len(owned))

    @router.get(
        "/api/v1/dlt/count",
        summary="How many dead letters there are",
        tags=["dead letters"],
        responses=declares(503),
    )
    async def dlt_count() -> schemas.DltCount:
        """How many records the dead-letter topic holds, counted there."""
        _check_connected(service)
        try:
            count = await service.dead_letter_count()
        except (RelanceError, TimeoutError) as failure:
            raise _no_answer(failure) from failure
        return schemas.DltCount(dltTopic=settings.dlt_topic, count=count, dltCount=count)

    @router.get(
        "/api/v1/dlt/messages",
        summary="The newest dead letters",
        tags=["dead letters"],
        responses=declares(422, 503),
    )
    async def dlt_messages(
        count: Annotated[int, Query(ge=1, le=MAX_DLT_MESSAGES, description="how many, at most")] = 10,
    ) -> schemas.DltMessages:
        """The newest dead letters, newest first."""
        _check_connected(service)
        try:
            letters = await service.latest_dead_letters(count)
        except (RelanceError, TimeoutError) as failure:
            raise _no_answer(failure) from failure
        return schemas.DltMessages(count=len(letters), messages=[_dlt_message(letter) for letter in letters])

    @router.get(
        "/health",
        summary="Whether this instance does its part",
        tags=["monitoring"],
        responses={503: {"model": schemas.HealthAnswer, "description": "DOWN"}},
        response_model=schemas.HealthAnswer,
    )
    async def health() -> JSONResponse:
        """503 only where this instance can't do its work: the reasons say why."""
        up, reasons, details = service.health()
        answer = schemas.HealthAnswer(
            status="UP" if up else "DOWN",
            reasons=reasons,
            instance=settings.instance,
            role=settings.role,
            details=details,
        )
        return JSONResponse(answer.model_dump(mode="json"), status_code=200 if up else 503)

    return router


def _check_connected(service: OrdersService, *, writes: bool = False) -> None:
    if not service.connected:
        _, reasons, _ = service.health()
        known = {"orderMayHaveBeenWritten": False} if writes else {}
        raise kafka_unavailable("; ".join(reasons), **known)


def _simulation_text(enabled: bool) -> str:
    if enabled:
        return "Simulated transient errors are on: orders fail, are retried and end in the dead-letter topic"
    return "Simulated transient errors are off"


def _group_stats(service: OrdersService) -> schemas.GroupStats:
    shares = service.counters.shares()
    now = service.counters.now()
    total = sum((share.counters for share in shares), Counters())
    return schemas.GroupStats(
        success=total.success,
        errors=total.errors,
        dlt=total.dlt,
        retries=total.retries,
        messagesRetried=total.retries,
        messagesSentToDlt=total.dlt,
        processingErrors=total.errors,
        instances=[
            schemas.InstanceStats(
                instance=share.instance,
                role=share.role,
                up=share.is_up(now),
                success=share.counters.success,
                errors=share.counters.errors,
                retries=share.counters.retries,
                dlt=share.counters.dlt,
                partitions=share.partitions if share.is_up(now) else [],
            )
            for share in shares
        ],
    )


def _dlt_message(letter: DeadLetter) -> schemas.DltMessage:
    value = letter.original_value
    return schemas.DltMessage(
        key=letter.original_key,
        originalTopic=letter.original_topic,
        originalPartition=letter.original_partition,
        originalOffset=letter.original_offset,
        originalValue=None if value is None else value[:MAX_SHOWN_VALUE],
        originalValueEncoding=letter.original_value_encoding,
        errorReason=letter.error_message,
        errorClass=letter.error_class,
        attempts=letter.retry_count + 1,
        retryCount=letter.retry_count,
        failedAt=letter.error_timestamp,
        consumerGroup=letter.consumer_group,
    )


def _no_answer(failure: RelanceError | TimeoutError) -> ProblemError:
    if isinstance(failure, TopicMissingError):
        return topic_missing([failure.topic])
    if isinstance(failure, RelanceError):
        return kafka_unavailable(str(failure))
    return kafka_unavailable("Kafka did not answer in time")
