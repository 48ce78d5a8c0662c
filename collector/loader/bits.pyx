"""A bit for each number in the memory of a mappable array of the kernel, which its programs change at the same time: so one
bit at once, and atomically (BPF_F_MMAPABLE, Linux 5.5).
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint64_t

import os


cdef extern from "sys/mman.h" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, int64_t offset)
    int munmap(void* addr, size_t length)
    enum:
        PROT_READ
        PROT_WRITE
        MAP_SHARED
    void* MAP_FAILED

cdef extern from *:
    """
    #define BIT_SET(p, v) (void)__atomic_fetch_or((p), (v), __ATOMIC_RELAXED)
    #define BIT_CLEAR(p, v) (void)__atomic_fetch_and((p), ~(v), __ATOMIC_RELAXED)
    #define WORD_STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
    #define WORD_LOAD(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    """
    void BIT_SET(uint64_t* p, uint64_t v) nogil
    void BIT_CLEAR(uint64_t* p, uint64_t v) nogil
    void WORD_STORE(uint64_t* p, uint64_t v) nogil
    uint64_t WORD_LOAD(uint64_t* p) nogil


cdef class Bits:
    """``fd``: a mappable array of ``words`` 64-bit values; it stays the caller's. Raises OSError; IndexError for a number
    beyond the array."""

    cdef uint64_t* words
    cdef uint64_t count

    def __cinit__(self, int fd, uint64_t words):
        cdef void* memory = mmap(NULL, <size_t>words * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if memory == MAP_FAILED:
            raise OSError(errno, os.strerror(errno))
        self.words = <uint64_t*>memory
        self.count = words

    def __dealloc__(self):
        if self.words != NULL:
            munmap(self.words, <size_t>self.count * 8)

    cdef uint64_t* word(self, uint64_t number) except NULL:
        if number >> 6 >= self.count:
            raise IndexError(number)
        return &self.words[number >> 6]

    def put(self, uint64_t number, bint on):
        """Set or clear a bit."""
        cdef uint64_t* word = self.word(number)
        if on:
            BIT_SET(word, <uint64_t>1 << (number & 63))
        else:
            BIT_CLEAR(word, <uint64_t>1 << (number & 63))

    def get(self, uint64_t number):
        """Is it set?"""
        return (WORD_LOAD(self.word(number)) >> (number & 63)) & 1 != 0

    def fill(self, bint on):
        """All of them."""
        cdef uint64_t i
        for i in range(self.count):
            WORD_STORE(&self.words[i], ~<uint64_t>0 if on else 0)
