# What the engine process does to every command of a SUBMIT, without a Python object each.
#
# `stamp` writes sequence and logged time into the records where they were
# received; `types_of` says which command types are among them, so that the rare
# ones (definitions, venue states) cost the common ones nothing.  `scan_text` walks
# a text area once: what it accepts, every later reader of log and events can read.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from engine.types cimport Command

cdef enum:
    ENTRY_BYTES = 8
    TAG_DEFINITION = 4
    ENTRY_MAX = 4096


cdef Py_ssize_t whole_records(const uint8_t[::1] records) except -1:
    """How many COMMAND records the buffer is."""
    cdef Py_ssize_t size = records.shape[0]
    if size == 0 or size % <Py_ssize_t>sizeof(Command):
        raise ValueError(f"{size} bytes are not a number of COMMAND records")
    return size // <Py_ssize_t>sizeof(Command)


def types_of(const uint8_t[::1] records):
    """Which command types are there; O(n).

    Returns
    -------
    int
        Bit t is set when a command of type t is there; bit 62 for types above 61.

    Raises
    ------
    ValueError
        The buffer is not a whole number of records.
    """
    cdef Py_ssize_t count = whole_records(records)
    cdef const Command* command = <const Command*>&records[0]
    cdef uint64_t types = 0
    cdef Py_ssize_t index
    cdef uint8_t kind
    with nogil:
        for index in range(count):
            kind = command[index].type
            types |= (<uint64_t>1) << (kind if kind < 62 else 62)
    return types


def stamp(uint8_t[::1] records, uint64_t first_sequence, int64_t time_ns):
    """Stamp sequences from `first_sequence`, and `time_ns`, in place; O(n).

    Returns
    -------
    int
        How many records there are.

    Raises
    ------
    ValueError
        The buffer is not a whole number of records.
    """
    cdef Py_ssize_t count = whole_records(records)
    cdef Command* command = <Command*>&records[0]
    cdef Py_ssize_t index
    with nogil:
        for index in range(count):
            command[index].sequence = first_sequence + <uint64_t>index
            command[index].time_ns = time_ns
    return count


def scan_text(const uint8_t[::1] text, uint32_t count):
    """Walk a text area: the tags in it, or -1 when it is malformed; O(entries).

    Parameters
    ----------
    count : int
        Commands in the frame: every entry's index must be below it.

    Returns
    -------
    int
        Bit t is set when an entry with tag t is there; bit 62 for tags above 61.
    """
    cdef Py_ssize_t size = text.shape[0]
    cdef Py_ssize_t position = 0
    cdef uint64_t tags = 0
    cdef uint32_t index
    cdef uint16_t tag, length
    while position < size:
        if size - position < ENTRY_BYTES:
            return -1
        index = (<const uint32_t*>&text[position])[0]
        tag = (<const uint16_t*>&text[position + 4])[0]
        length = (<const uint16_t*>&text[position + 6])[0]
        position += ENTRY_BYTES
        if index >= count or size - position < length or (length > ENTRY_MAX and tag != TAG_DEFINITION):
            return -1
        position += length
        tags |= (<uint64_t>1) << (tag if tag < 62 else 62)
    return tags
