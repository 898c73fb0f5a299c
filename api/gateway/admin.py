"""The admin listener: accounts, keys, deposits, assets, markets, states, checkpoint, resume.

Each change is a logged command, made by a key with the scope admin.  Names are
unique: asking again for what exists with the same definition gives it back,
marked as replayed.  A token is shown once, in the answer that made its key.
"""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.decimals import DecimalError, scale_of, to_units
from api.gateway import models
from api.gateway.clock import iso, wall_ns
from api.gateway.entry import fault_problem
from api.gateway.errors import Problem, rejected
from api.gateway.http import Outcome, problem_outcome
from api.gateway.keys import ADMIN, SCOPES, Key
from api.gateway.models import RequestDecoder
from api.gateway.openapi import operation, path
from api.gateway.orders import DUPLICATE, REJECTED
from api.gateway.registry import Asset, build_market
from api.gateway.routes import add_operations, answer, body_of, json_response, market_document, parameters
from api.gateway.validation import INT64_MAX_TEXT, amount_atoms, check_identifier, market_of, pack
from api.gateway.venue import Venue
from api.identity import body_digest, digest_pair, hash_words, new_token, token_hash
from api.runtime.errors import RuntimeFault
from engine.types import FEE_ACCOUNT, INT64_MAX, CommandType, EventType, MarketState, VenueState
from persistence.text import TextTag

_SECOND_NS = 1_000_000_000
_PROBLEMS = (400, 404, 409, 413, 422, 503, 504)

_decode_asset = RequestDecoder(models.NewAsset)
_decode_market = RequestDecoder(models.NewMarket)
_decode_account = RequestDecoder(models.NewAccount)
_decode_key = RequestDecoder(models.NewKey)
_decode_transfer = RequestDecoder(models.Transfer)
_decode_state = RequestDecoder(models.StateChange)
_decode_resume = RequestDecoder(models.Resume)

VENUE_STATES = {state.name: state for state in (VenueState.OPEN, VenueState.CANCEL_ONLY, VenueState.HALTED)}


def require_admin(venue: Venue, request: Request) -> Key:
    """The caller's key, which must have the scope admin."""
    authorization = request.headers.get("authorization")
    parameters(request)
    return venue.mirror.keys.authenticate(
        None if authorization is None else authorization.encode("latin-1"), ADMIN
    )


def definition_text(definition: dict[str, Any]) -> tuple[tuple[int, bytes], ...]:
    """The text entry that carries names."""
    return ((int(TextTag.DEFINITION), orjson.dumps(definition)),)


def market_numbers(base: Asset, quote: Asset, tick_size: str, lot_size: str) -> tuple[int, int]:
    """tick_atoms and lot_atoms of a market.

    Raises
    ------
    Problem
        A size is no positive decimal, or tick x lot is no whole number of quote atoms.
    """
    try:
        lot_atoms = to_units(lot_size, 1, base.decimals)
    except DecimalError as error:
        detail = (
            f"'lot_size' must be a positive decimal with at most {base.decimals} decimals ({error.kind})."
        )
        raise Problem("invalid_amount", detail, field="lot_size", limit=str(base.decimals)) from error
    tick_scale = scale_of(tick_size)
    try:
        tick = to_units(tick_size, 1, min(tick_scale, 30))
    except DecimalError as error:
        raise Problem("invalid_amount", f"'tick_size' must be a positive decimal ({error.kind}).",
                      field="tick_size") from error  # fmt: skip
    product = tick * lot_atoms * 10**quote.decimals
    atoms, rest = divmod(product, 10 ** (tick_scale + base.decimals))
    if rest or not 1 <= atoms <= INT64_MAX:
        detail = (
            f"tick_size x lot_size must be a whole number of atoms of {quote.symbol} (10^-{quote.decimals})."
        )
        raise Problem("invalid_amount", detail, field="tick_size")
    return atoms, lot_atoms


def admin_router(venue: Venue) -> APIRouter:
    """All routes of the admin listener."""
    router = APIRouter()
    _add_definitions(router, venue)
    _add_keys(router, venue)
    _add_transfers(router, venue)
    _add_states(router, venue)
    add_operations(router, venue)
    return router


def _existing(found: dict[str, Any], wanted: dict[str, Any], what: str) -> Response:
    """The answer for a name that is taken."""
    differing = [name for name, value in wanted.items() if found.get(name) != value]
    if differing:
        raise Problem("already_exists", f"{what} exists with another {differing[0]}.", field=differing[0])
    return json_response(Outcome(200, orjson.dumps(found), replayed=True))


def _add_definitions(router: APIRouter, venue: Venue) -> None:
    registry = venue.mirror.registry

    @router.post(
        "/v1/admin/assets",
        tags=["admin"],
        summary="Open an asset",
        status_code=201,
        openapi_extra=operation(
            request=models.NewAsset, answer=models.AssetAnswer, status=201, problems=_PROBLEMS
        ),
    )
    async def open_asset(request: Request) -> Response:
        """Amounts of it are multiples of 10**-decimals."""
        require_admin(venue, request)
        wanted = _decode_asset(await body_of(request))
        check_identifier(wanted.symbol, "symbol")
        if "/" in wanted.symbol or "-" in wanted.symbol:
            # They part a market's symbol, here and in paths.
            detail = f"'symbol' is {wanted.symbol!r}; it may have no '/' and no '-'."
            raise Problem("invalid_value", detail, field="symbol", limit="no / or -")
        definition = {"symbol": wanted.symbol, "decimals": wanted.decimals}
        async with venue.admin_lock:
            known = registry.assets_by_symbol.get(wanted.symbol)
            if known is None:
                await venue.command(pack(CommandType.OPEN_ASSET), definition_text(definition))
                asset = registry.assets_by_symbol[wanted.symbol]
                return answer({"asset": asset.number, **definition}, 201)
        found = {"asset": known.number, "symbol": known.symbol, "decimals": known.decimals}
        return _existing(found, definition, f"The asset {wanted.symbol!r}")

    @router.post(
        "/v1/admin/markets",
        tags=["admin"],
        summary="Open a market",
        status_code=201,
        openapi_extra=operation(
            request=models.NewMarket, answer=models.Market, status=201, problems=_PROBLEMS
        ),
    )
    async def open_market(request: Request) -> Response:
        """tick_size x lot_size must be a whole number of the quote's atoms."""
        require_admin(venue, request)
        wanted = _decode_market(await body_of(request))
        base, quote = (registry.assets_by_symbol.get(name) for name in (wanted.base, wanted.quote))
        if base is None or quote is None:
            field = "base" if base is None else "quote"
            raise Problem("unknown_asset", f"{field!r} names no asset.", field=field)
        if wanted.symbol != f"{wanted.base}/{wanted.quote}":
            raise Problem(
                "invalid_value", f"'symbol' must be '{wanted.base}/{wanted.quote}'.", field="symbol"
            )
        for field, ppm in (("maker_fee_ppm", wanted.maker_fee_ppm), ("taker_fee_ppm", wanted.taker_fee_ppm)):
            if not -1_000_000 <= ppm <= 1_000_000:
                raise Problem("invalid_fee", f"{field!r} is parts per million.", field=field, limit="1000000")
        tick_atoms, lot_atoms = market_numbers(base, quote, wanted.tick_size, wanted.lot_size)
        definition = {
            "symbol": wanted.symbol, "base": wanted.base, "quote": wanted.quote,
            "tick_size": wanted.tick_size, "lot_size": wanted.lot_size,
        }  # fmt: skip
        fees = {"maker_fee_ppm": wanted.maker_fee_ppm, "taker_fee_ppm": wanted.taker_fee_ppm}
        try:
            # What is logged is there for good: it is built before, as every gateway will build it.
            build_market(definition, 0, base, quote, tick_atoms=tick_atoms, lot_atoms=lot_atoms, **fees)
        except DecimalError as error:
            detail = f"'tick_size' must be at most 2^63 - 1 steps of 10^-{quote.decimals} ({error.kind})."
            raise Problem("invalid_amount", detail, field="tick_size", limit=INT64_MAX_TEXT) from error
        async with venue.admin_lock:
            known = registry.markets_by_symbol.get(wanted.symbol)
            if known is None:
                record = pack(
                    CommandType.OPEN_MARKET,
                    asset=base.number,
                    slot=quote.number,
                    price=tick_atoms,
                    quantity=lot_atoms,
                    trigger_price=wanted.maker_fee_ppm,
                    expire_time_ns=wanted.taker_fee_ppm,
                )
                await venue.command(record, definition_text(definition))
                return answer(market_document(registry.markets_by_symbol[wanted.symbol]), 201)
        return _existing(market_document(known), {**definition, **fees}, f"The market {wanted.symbol!r}")

    @router.post(
        "/v1/admin/accounts",
        tags=["admin"],
        summary="Open an account",
        status_code=201,
        openapi_extra=operation(
            request=models.NewAccount, answer=models.AccountAnswer, status=201, problems=_PROBLEMS
        ),
    )
    async def open_account(request: Request) -> Response:
        """Its number is in the answer."""
        require_admin(venue, request)
        wanted = _decode_account(await body_of(request))
        check_identifier(wanted.name, "name")
        async with venue.admin_lock:
            known = registry.accounts_by_name.get(wanted.name)
            if known is None:
                await venue.command(pack(CommandType.OPEN_ACCOUNT), definition_text({"name": wanted.name}))
                account = registry.accounts_by_name[wanted.name]
                return answer(
                    {"account": account.number, "name": account.name, "state": account.state.name}, 201
                )
        found = {"account": known.number, "name": known.name, "state": known.state.name}
        return _existing(found, {"name": wanted.name}, f"The account {wanted.name!r}")


def _add_keys(router: APIRouter, venue: Venue) -> None:
    @router.post(
        "/v1/admin/keys",
        tags=["admin"],
        summary="Make an API key",
        status_code=201,
        openapi_extra=operation(
            request=models.NewKey, answer=models.KeyAnswer, status=201, problems=_PROBLEMS
        ),
    )
    async def add_key(request: Request) -> Response:
        """The token is in this answer and nowhere else."""
        require_admin(venue, request)
        wanted = _decode_key(await body_of(request))
        account = wanted.account or FEE_ACCOUNT
        if wanted.account is not None and (
            account == FEE_ACCOUNT or account not in venue.mirror.registry.accounts
        ):
            raise Problem("unknown_account", f"There is no account {wanted.account}.", field="account")
        if account == FEE_ACCOUNT and set(wanted.scopes) != {"admin"}:
            raise Problem(
                "missing_field", "'account' is required for the scopes read and trade.", field="account"
            )
        token = new_token()
        digest = token_hash(token)
        words = hash_words(digest)
        scopes = sum(SCOPES[scope] for scope in set(wanted.scopes))
        expires = wall_ns() + wanted.expires_in_s * _SECOND_NS if wanted.expires_in_s else 0
        record = pack(
            CommandType.ADD_KEY,
            account=account,
            asset=scopes,
            client_id=words[:2],
            key=words[2:],
            expire_time_ns=expires,
        )
        await venue.command(record, definition_text({"name": wanted.name, "prefix": token[:7]}))
        document = {
            "key_id": digest.hex(),
            "token": token,
            "account": wanted.account,
            "scopes": sorted(set(wanted.scopes)),
            "expires_at": iso(expires) if expires else None,
        }
        return answer(document, 201)

    @router.delete(
        "/v1/admin/keys/{key_id}",
        tags=["admin"],
        summary="Revoke an API key",
        openapi_extra=operation(
            problems=_PROBLEMS, parameters=(path("key_id", "As answered when it was made."),)
        ),
    )
    async def revoke_key(request: Request) -> Response:
        """At once; revoking again changes nothing."""
        require_admin(venue, request)
        text = request.path_params["key_id"]
        try:
            digest = bytes.fromhex(text)
        except ValueError:
            digest = b""
        if venue.mirror.keys.get(digest) is None:
            raise Problem("unknown_key", f"There is no key {text[:64]!r}.", field="key_id")
        words = hash_words(digest)
        reply = await venue.command(pack(CommandType.REVOKE_KEY, client_id=words[:2], key=words[2:]))
        return answer({"key_id": text, "revoked": True, "sequence": reply.sequence})


def _add_transfers(router: APIRouter, venue: Venue) -> None:
    async def transfer(request: Request, kind: CommandType) -> Response:
        require_admin(venue, request)
        wanted = _decode_transfer(await body_of(request))
        check_identifier(wanted.transaction_id, "transaction_id")
        registry = venue.mirror.registry
        asset = registry.assets_by_symbol.get(wanted.asset)
        if asset is None:
            raise Problem("unknown_asset", f"There is no asset {wanted.asset!r}.", field="asset")
        if wanted.account not in registry.accounts or wanted.account == FEE_ACCOUNT:
            raise Problem("unknown_account", f"There is no account {wanted.account}.", field="account")
        quantity = amount_atoms(asset, wanted.amount)
        texts: list[tuple[int, bytes]] = [(int(TextTag.TRANSACTION_ID), wanted.transaction_id.encode())]
        key = (0, 0)
        if wanted.idempotency_key is not None:
            check_identifier(wanted.idempotency_key, "idempotency_key")
            key = digest_pair(wanted.idempotency_key)
            texts.append((int(TextTag.IDEMPOTENCY_KEY), wanted.idempotency_key.encode()))
        client_id = digest_pair(wanted.transaction_id)
        record = pack(
            kind,
            account=wanted.account,
            asset=asset.number,
            quantity=quantity,
            client_id=client_id,
            key=key,
            body=body_digest(kind, asset=asset.number, quantity=quantity, client_id=client_id),
        )
        reply = await venue.command(record, tuple(texts))
        replayed = reply.events[0][0] == DUPLICATE
        sequence = reply.events[0][10] if replayed else reply.sequence
        if replayed:
            refused = await _check_first(wanted, asset, kind, sequence)
            if refused is not None:
                return json_response(problem_outcome(refused, replayed=True))
        document = {
            "transaction_id": wanted.transaction_id, "account": wanted.account, "asset": wanted.asset,
            "amount": asset.amount_text(quantity), "sequence": sequence,
        }  # fmt: skip
        return json_response(Outcome(200 if replayed else 201, orjson.dumps(document), replayed))

    async def _check_first(
        wanted: models.Transfer, asset: Asset, kind: CommandType, sequence: int
    ) -> Problem | None:
        """The refusal that the first one got, if it did.

        A transaction id names one transfer: another under the same id is a conflict.
        """
        try:
            first, _ = await venue.reads.events_of(sequence)
        except RuntimeFault as fault:
            raise fault_problem(fault) from fault
        if first.events[0][0] == REJECTED:
            return rejected(first.events[0][3], sequence)
        booked = EventType.DEPOSITED if kind == CommandType.DEPOSIT else EventType.WITHDRAWN
        expected = (int(booked), wanted.account, asset.number, amount_atoms(asset, wanted.amount))
        if not any((row[0], row[7], row[8], row[10]) == expected for row in first.events):
            detail = "This transaction_id was used for another transfer."
            raise Problem("idempotency_conflict", detail, field="transaction_id", sequence=sequence)
        return None

    @router.post(
        "/v1/admin/deposits",
        tags=["admin"],
        summary="Deposit",
        status_code=201,
        openapi_extra=operation(
            request=models.Transfer, answer=models.TransferAnswer, status=201, problems=_PROBLEMS
        ),
    )
    async def deposit(request: Request) -> Response:
        """A second one with the same transaction_id changes nothing and gets the first one's answer."""
        return await transfer(request, CommandType.DEPOSIT)

    @router.post(
        "/v1/admin/withdrawals",
        tags=["admin"],
        summary="Withdraw",
        status_code=201,
        openapi_extra=operation(
            request=models.Transfer, answer=models.TransferAnswer, status=201, problems=_PROBLEMS
        ),
    )
    async def withdraw(request: Request) -> Response:
        """From what is available; by transaction_id as deposits."""
        return await transfer(request, CommandType.WITHDRAW)


def _add_states(router: APIRouter, venue: Venue) -> None:
    async def change_venue(state: VenueState, reason: str) -> Response:
        record = pack(CommandType.SET_VENUE_STATE, quantity=int(state))
        reply = await venue.command(record, ((int(TextTag.REASON), reason.encode()),))
        return answer({"state": venue.mirror.venue_state.name, "sequence": reply.sequence})

    @router.post(
        "/v1/admin/markets/{symbol}/state",
        tags=["admin"],
        summary="Set a market's trading state",
        openapi_extra=operation(
            request=models.StateChange,
            answer=models.StateAnswer,
            problems=_PROBLEMS,
            parameters=(path("symbol", "The symbol with a hyphen: BTC-USDT."),),
        ),
    )
    async def set_market_state(request: Request) -> Response:
        """OPEN, POST_ONLY, CANCEL_ONLY or HALTED."""
        require_admin(venue, request)
        wanted = _decode_state(await body_of(request))
        market = market_of(venue.mirror.registry, request.path_params["symbol"])
        state = MarketState[wanted.state]
        record = pack(CommandType.SET_MARKET_STATE, market=market.number, quantity=int(state))
        reply = await venue.command(record, ((int(TextTag.REASON), wanted.reason.encode()),))
        return answer({"state": state.name, "sequence": reply.sequence})

    @router.post(
        "/v1/admin/venue/state",
        tags=["admin"],
        summary="Set the venue's state",
        openapi_extra=operation(request=models.StateChange, answer=models.StateAnswer, problems=_PROBLEMS),
    )
    async def set_venue_state(request: Request) -> Response:
        """OPEN, CANCEL_ONLY or HALTED."""
        require_admin(venue, request)
        wanted = _decode_state(await body_of(request))
        state = VENUE_STATES.get(wanted.state)
        if state is None:
            allowed = ", ".join(VENUE_STATES)
            raise Problem("invalid_value", f"'state' must be one of {allowed}.", field="state", limit=allowed)
        return await change_venue(state, wanted.reason)

    @router.post(
        "/v1/admin/resume",
        tags=["admin"],
        summary="Open a halted venue",
        openapi_extra=operation(request=models.Resume, answer=models.StateAnswer, problems=_PROBLEMS),
    )
    async def resume(request: Request) -> Response:
        """With a reason, which is logged with the command."""
        require_admin(venue, request)
        wanted = _decode_resume(await body_of(request))
        return await change_venue(VenueState.OPEN, wanted.reason)

    @router.post(
        "/v1/admin/checkpoint",
        tags=["admin"],
        summary="Take a checkpoint now",
        openapi_extra=operation(answer=models.CheckpointAnswer, problems=_PROBLEMS),
    )
    async def checkpoint(request: Request) -> Response:
        """Answers when it is published."""
        require_admin(venue, request)
        if not venue.link.connected:
            raise Problem("unavailable", "The engine is down; try again.")
        try:
            result = await venue.link.query("checkpoint")
        except RuntimeFault as fault:
            raise fault_problem(fault) from fault
        return answer({"sequence": int(result["sequence"])})
