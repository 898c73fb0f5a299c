# 128-bit intermediate results, and 64-bit products that know when they overflow.
#
# Amounts are int64; products of two amounts, or of an amount and a rate, are
# not.  The compiler's __int128 is declared as a long long: Cython only needs to
# know that it is an integer, the C compiler does the arithmetic in full width.
from libc.stdint cimport int64_t

cdef extern from *:
    """
    typedef __int128 holdfast_i128;
    #define holdfast_multiply(a, b, out) __builtin_mul_overflow((a), (b), (out))
    #define holdfast_add(a, b, out) __builtin_add_overflow((a), (b), (out))
    #define holdfast_likely(x) __builtin_expect(!!(x), 1)
    #define holdfast_unlikely(x) __builtin_expect(!!(x), 0)
    #define holdfast_first_set(x) __builtin_ctzll(x)
    #define holdfast_prefetch(p) __builtin_prefetch(p)
    """
    ctypedef long long i128 "holdfast_i128"
    # True when the exact result does not fit; it is then not to be used.
    bint multiply_overflows "holdfast_multiply"(int64_t a, int64_t b, int64_t* out) noexcept nogil
    bint add_overflows "holdfast_add"(int64_t a, int64_t b, int64_t* out) noexcept nogil
    bint likely "holdfast_likely"(bint x) noexcept nogil
    bint unlikely "holdfast_unlikely"(bint x) noexcept nogil
    int first_set "holdfast_first_set"(unsigned long long x) noexcept nogil
    void prefetch "holdfast_prefetch"(const void* p) noexcept nogil
