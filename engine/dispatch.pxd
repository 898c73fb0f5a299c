# One command: time, the prelude, the deed, the key that is kept, the checks.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.admin cimport (
    emit_duplicate, run_add_key, run_drained, run_open_account, run_open_asset, run_open_market,
    run_revoke_key, run_set_account_state, run_set_market_state, run_set_venue_state, run_start,
    run_transfer,
)
from engine.books cimport QUEUED
from engine.idempotency cimport (
    IDEMPOTENCY_WINDOW_NS, SeenKey, idempotency_find, idempotency_pop, idempotency_push,
    idempotency_reserve, seen_at,
)
from engine.int128 cimport likely, unlikely
from engine.invariants cimport close_command
from engine.trading cimport id_of, run_amend, run_cancel, run_new
from engine.types cimport *
from engine.venue cimport Venue, emit, violate


cdef inline void emit_rejected(Venue* venue, const Command* command, uint8_t reason) noexcept nogil:
    cdef uint64_t order_id = 0
    cdef uint32_t slot = NO_SLOT
    cdef uint8_t flags = 0
    if command.type == COMMAND_NEW:
        order_id = id_of(venue, command)
        if command.side == SIDE_SELL:
            flags = EVENT_FLAG_SELL
    elif command.type == COMMAND_CANCEL or command.type == COMMAND_AMEND:
        order_id = command.order_id
        slot = command.slot
    emit(
        venue, EVENT_REJECTED, flags, reason, slot, order_id, command.account, command.market,
        command.price, command.quantity, 0, command.type,
    )


cdef inline void drop_old_keys(Venue* venue) noexcept nogil:
    """Forget the idempotency keys that are a day old."""
    while venue.idempotency.count and (
        venue.time_ns - seen_at(&venue.idempotency, 0).time_ns >= IDEMPOTENCY_WINDOW_NS
    ):
        venue.accounts[idempotency_pop(&venue.idempotency)].keys -= 1


cdef inline bint prelude(Venue* venue, const Command* command, uint8_t* reason) noexcept nogil:
    """What may end a customer's command before it runs; True when it runs."""
    cdef const SeenKey* seen
    reason[0] = REASON_NONE
    if command.accepted_no and (command.type == COMMAND_NEW or command.type == COMMAND_CANCEL):
        if command.accepted_no >= QUEUED:
            reason[0] = REASON_INVALID_IDENTIFIER
            return False
        if command.accepted_no <= venue.accepted_no:
            emit_duplicate(venue, command, 0)
            return False
        venue.accepted_no = command.accepted_no
    if unlikely(command.account == FEE_ACCOUNT or command.account >= venue.accounts_count):
        reason[0] = REASON_UNKNOWN_ACCOUNT
        return False
    if command.key_lo | command.key_hi:
        seen = idempotency_find(&venue.idempotency, command.account, command.key_lo, command.key_hi)
        if seen != NULL:
            if seen.body == command.body:
                emit_duplicate(venue, command, seen.sequence)
            else:
                reason[0] = REASON_IDEMPOTENCY_CONFLICT
            return False
        if (
            venue.accounts[command.account].keys >= IDEMPOTENCY_QUOTA
            or venue.idempotency.count >= IDEMPOTENCY_TOTAL
        ):
            reason[0] = REASON_IDEMPOTENCY_QUOTA
            return False
        if unlikely(idempotency_reserve(&venue.idempotency) < 0):
            venue.is_out_of_memory = True
            return False
    return True


cdef inline void keep_key(Venue* venue, const Command* command) noexcept nogil:
    """Remember a customer's key; room was reserved."""
    cdef SeenKey seen
    seen.key_lo = command.key_lo
    seen.key_hi = command.key_hi
    seen.body = command.body
    seen.sequence = venue.sequence
    seen.time_ns = venue.time_ns
    seen.account = command.account
    seen.spare = 0
    idempotency_push(&venue.idempotency, seen)
    venue.accounts[command.account].keys += 1


cdef inline uint8_t run_customer(Venue* venue, const Command* command) noexcept nogil:
    """NEW, CANCEL, AMEND, DEPOSIT, WITHDRAW, with the prelude before and the key after."""
    cdef uint8_t reason
    if not prelude(venue, command, &reason):
        return reason
    if command.type == COMMAND_NEW:
        reason = run_new(venue, command, True)
    elif command.type == COMMAND_CANCEL:
        reason = run_cancel(venue, command, True)
    elif command.type == COMMAND_AMEND:
        reason = run_amend(venue, command, True)
    else:
        reason = run_transfer(venue, command)
    if command.key_lo | command.key_hi and reason != REASON_VENUE_DRAINING:
        keep_key(venue, command)
    return reason


cdef inline uint8_t run_admin(Venue* venue, const Command* command) noexcept nogil:
    if command.type == COMMAND_OPEN_ASSET:
        return run_open_asset(venue, command)
    if command.type == COMMAND_OPEN_MARKET:
        return run_open_market(venue, command)
    if command.type == COMMAND_OPEN_ACCOUNT:
        return run_open_account(venue, command)
    if command.type == COMMAND_ADD_KEY:
        return run_add_key(venue, command)
    if command.type == COMMAND_REVOKE_KEY:
        return run_revoke_key(venue, command)
    if command.type == COMMAND_SET_MARKET_STATE:
        return run_set_market_state(venue, command)
    if command.type == COMMAND_SET_VENUE_STATE:
        return run_set_venue_state(venue, command)
    if command.type == COMMAND_SET_ACCOUNT_STATE:
        return run_set_account_state(venue, command)
    if command.type == COMMAND_START:
        return run_start(venue, command)
    if command.type == COMMAND_DRAINED:
        return run_drained(venue, command)
    if command.type == COMMAND_TICK:
        return REASON_NONE
    return REASON_UNKNOWN_COMMAND


cdef inline bint begin(Venue* venue, const Command* command) noexcept nogil:
    """Advance sequence and time; False when the sequence has a gap (I9), nothing being changed."""
    if unlikely(command.sequence != 0 and command.sequence != venue.sequence + 1):
        violate(venue, 9, 0, 0, <int64_t>(command.sequence - venue.sequence - 1))
        venue.violation.sequence = venue.sequence + 1
        return False
    venue.sequence += 1
    if command.time_ns > venue.time_ns:
        venue.time_ns = command.time_ns
    venue.market = 0
    venue.asset = 0
    venue.ledger.touched_count = 0
    return True


cdef inline bint finish(
    Venue* venue, const Command* command, uint8_t reason, uint64_t first, bint money
) noexcept nogil:
    """Answer a rejection, check; False when the batch must end. Events of the command begin at `first`."""
    if reason != REASON_NONE:
        emit_rejected(venue, command, reason)
    close_command(venue, money)
    venue.events_total += venue.events_count - first
    return likely(venue.violation.invariant == 0 and not venue.is_out_of_memory)


cdef inline bint execute(Venue* venue, const Command* command) noexcept nogil:
    """Apply one command to the venue; False when the batch must end."""
    cdef uint64_t first = venue.events_count
    cdef uint8_t reason
    if not begin(venue, command):
        return False
    drop_old_keys(venue)
    if unlikely(command.version != VERSION):
        reason = REASON_UNKNOWN_COMMAND
    elif (
        COMMAND_NEW <= command.type <= COMMAND_AMEND
        or command.type == COMMAND_DEPOSIT
        or command.type == COMMAND_WITHDRAW
    ):
        reason = run_customer(venue, command)
    else:
        reason = run_admin(venue, command)
    return finish(venue, command, reason, first, True)


cdef inline bint execute_bare(Venue* venue, const Command* command) noexcept nogil:
    """The same for a book without ledger: NEW, CANCEL and AMEND, for any account."""
    cdef uint64_t first = venue.events_count
    cdef uint8_t reason = REASON_UNKNOWN_COMMAND
    if not begin(venue, command):
        return False
    if likely(command.version == VERSION):
        if command.type == COMMAND_NEW:
            reason = run_new(venue, command, False)
        elif command.type == COMMAND_CANCEL:
            reason = run_cancel(venue, command, False)
        elif command.type == COMMAND_AMEND:
            reason = run_amend(venue, command, False)
    return finish(venue, command, reason, first, False)
