"""CRC32C (Castagnoli, RFC 3720): the checksum of every byte that we keep.

By the processor's instruction (SSE4.2, ARMv8 CRC) where it has one, else by
tables of eight; chosen when the module is imported (`IMPLEMENTATION`). From C,
cimport `crc32c_extend`, and `crc32c_join` to put two checksums together.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    static uint32_t crc32c_tables[8][256];

    static void crc32c_fill_tables(void) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = byte;
            for (int bit = 0; bit < 8; bit++)
                crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1u)));
            crc32c_tables[0][byte] = crc;
        }
        for (uint32_t byte = 0; byte < 256; byte++)
            for (int table = 1; table < 8; table++) {
                uint32_t before = crc32c_tables[table - 1][byte];
                crc32c_tables[table][byte] = (before >> 8) ^ crc32c_tables[0][before & 0xFF];
            }
    }

    static uint32_t crc32c_by_table(uint32_t crc, const uint8_t *data, size_t size) {
        crc = ~crc;
        for (; size >= 8; size -= 8, data += 8) {
            uint32_t low = crc ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8
                                  | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24);
            crc = crc32c_tables[7][low & 0xFF] ^ crc32c_tables[6][(low >> 8) & 0xFF]
                ^ crc32c_tables[5][(low >> 16) & 0xFF] ^ crc32c_tables[4][low >> 24]
                ^ crc32c_tables[3][data[4]] ^ crc32c_tables[2][data[5]]
                ^ crc32c_tables[1][data[6]] ^ crc32c_tables[0][data[7]];
        }
        for (; size; size--, data++)
            crc = (crc >> 8) ^ crc32c_tables[0][(crc ^ *data) & 0xFF];
        return ~crc;
    }

    /* Polynomials modulo P over GF(2), bit 31 the constant term, as the checksum has them. */
    static uint32_t crc32c_powers[67];

    static uint32_t crc32c_multiply(uint32_t a, uint32_t b) {
        uint32_t product = 0;
        for (uint32_t bit = 1u << 31; a; bit >>= 1) {
            if (a & bit) {
                product ^= b;
                a ^= bit;
            }
            b = (b >> 1) ^ (0x82F63B78u & (0u - (b & 1u)));
        }
        return product;
    }

    static void crc32c_fill_powers(void) {
        crc32c_powers[0] = 1u << 30;
        for (int power = 1; power < 67; power++)
            crc32c_powers[power] = crc32c_multiply(crc32c_powers[power - 1], crc32c_powers[power - 1]);
    }

    /* crc times x to the number of bits of `size` bytes: what appending them does to it. */
    static uint32_t crc32c_shift(uint32_t crc, uint64_t size) {
        for (int power = 3; size; size >>= 1, power++)
            if (size & 1)
                crc = crc32c_multiply(crc32c_powers[power], crc);
        return crc;
    }

    #if defined(__x86_64__)
    #include <nmmintrin.h>
    __attribute__((target("sse4.2")))
    static uint32_t crc32c_by_instruction(uint32_t crc, const uint8_t *data, size_t size) {
        uint64_t state = (uint32_t)~crc, word;
        for (; size >= 8; size -= 8, data += 8) {
            memcpy(&word, data, 8);
            state = _mm_crc32_u64(state, word);
        }
        for (; size; size--, data++)
            state = _mm_crc32_u8((uint32_t)state, *data);
        return ~(uint32_t)state;
    }
    static int crc32c_has_instruction(void) { return __builtin_cpu_supports("sse4.2") != 0; }
    #elif defined(__aarch64__) && defined(__linux__)
    #include <sys/auxv.h>
    __attribute__((target("+crc")))
    static uint32_t crc32c_by_instruction(uint32_t crc, const uint8_t *data, size_t size) {
        uint32_t state = ~crc;
        uint64_t word;
        for (; size >= 8; size -= 8, data += 8) {
            memcpy(&word, data, 8);
            __asm__("crc32cx %w0, %w0, %x1" : "+r"(state) : "r"(word));
        }
        for (; size; size--, data++)
            __asm__("crc32cb %w0, %w0, %w1" : "+r"(state) : "r"((uint32_t)*data));
        return ~state;
    }
    static int crc32c_has_instruction(void) { return (getauxval(AT_HWCAP) & (1 << 7)) != 0; }
    #else
    #define crc32c_by_instruction crc32c_by_table
    static int crc32c_has_instruction(void) { return 0; }
    #endif
    """
    void crc32c_fill_tables() noexcept nogil
    void crc32c_fill_powers() noexcept nogil
    uint32_t crc32c_shift(uint32_t crc, uint64_t size) noexcept nogil
    uint32_t crc32c_by_table(uint32_t crc, const uint8_t* data, size_t size) noexcept nogil
    uint32_t crc32c_by_instruction(uint32_t crc, const uint8_t* data, size_t size) noexcept nogil
    int crc32c_has_instruction() noexcept nogil

crc32c_fill_tables()
crc32c_fill_powers()
cdef bint by_instruction = crc32c_has_instruction() != 0

IMPLEMENTATION = "instruction" if by_instruction else "table"


cdef uint32_t crc32c_extend(uint32_t value, const uint8_t* data, size_t size) noexcept nogil:
    if by_instruction:
        return crc32c_by_instruction(value, data, size)
    return crc32c_by_table(value, data, size)


cdef uint32_t crc32c_join(uint32_t first, uint32_t second, uint64_t size) noexcept nogil:
    return crc32c_shift(first, size) ^ second


def crc32c(const uint8_t[::1] buffer not None, uint32_t value=0):
    """CRC32C of a buffer, continuing from `value`.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    >>> crc32c(b"6789", crc32c(b"12345")) == crc32c(b"123456789")
    True
    """
    cdef size_t size = buffer.shape[0]
    cdef uint32_t result
    if size == 0:
        return value
    with nogil:
        result = crc32c_extend(value, &buffer[0], size)
    return result


def crc32c_table(const uint8_t[::1] buffer not None, uint32_t value=0):
    """The same by the tables, whatever the processor has; for comparison."""
    if buffer.shape[0] == 0:
        return value
    return crc32c_by_table(value, &buffer[0], buffer.shape[0])


def join(uint32_t first, uint32_t second, uint64_t size):
    """Checksum of two buffers one behind the other, from theirs; `size` bytes are in the second; O(log size).

    >>> join(crc32c(b"12345"), crc32c(b"6789"), 4) == crc32c(b"123456789")
    True
    """
    return crc32c_join(first, second, size)
