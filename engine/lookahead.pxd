# Fetches from memory what the next commands of a batch will want, in two steps.
#
# A book of any size is larger than the nearest cache, and an order that is named
# is in a random place: without this a cancel waits for memory three times, one
# after another.  A batch says what comes: FAR commands ahead the order (or the
# entry of the index that leads to it) is asked for, NEAR ahead what it points
# to.  Nothing is changed and nothing here decides anything: a wrong guess costs
# a wasted fetch.
from libc.stdint cimport uint32_t, uint64_t

from engine.books cimport NO_LINK, Books, Order
from engine.index cimport hash_words
from engine.int128 cimport prefetch
from engine.types cimport COMMAND_AMEND, COMMAND_CANCEL, Command
from engine.venue cimport Venue

cdef enum:
    FAR = 8
    NEAR = 4


cdef inline uint64_t client_place(const Books* book, const Command* command) noexcept nogil:
    """Where the search for a client id begins."""
    return hash_words(command.client_id_lo, command.client_id_hi, command.account) & book.clients.mask


cdef inline void fetch_far(const Venue* venue, const Command* command, bint money) noexcept nogil:
    cdef const Books* book = &venue.book
    if command.order_id:
        if command.slot < book.orders_capacity:
            prefetch(&book.orders[command.slot])
            if money:
                prefetch(&book.orders[command.slot].hold)
    elif command.client_id_lo and book.clients.entries != NULL:
        prefetch(&book.clients.entries[client_place(book, command)])


cdef inline void fetch_near(const Venue* venue, const Command* command, bint money) noexcept nogil:
    cdef const Books* book = &venue.book
    cdef const Order* order
    cdef uint32_t number
    if command.type != COMMAND_CANCEL and command.type != COMMAND_AMEND:
        return
    if command.order_id:
        if command.slot >= book.orders_capacity:
            return
        order = &book.orders[command.slot]
        if order.prev != NO_LINK:
            prefetch(&book.orders[order.prev])
        if order.next != NO_LINK:
            prefetch(&book.orders[order.next])
    elif command.client_id_lo and book.clients.entries != NULL:
        number = book.clients.entries[client_place(book, command)].number
        if number:
            prefetch(&book.orders[number - 1])
            prefetch(&book.orders[number - 1].hold)
