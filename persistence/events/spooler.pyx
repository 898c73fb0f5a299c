"""Writes parts of memory to the end of a file, in order, on a thread without the GIL.

    matching thread                        event thread
      put(chunk, begin, end, mark) ──────▶ pwrite, mark reached
      put_task(change of segment) ───────▶ sync A, create B, sync the directory     (Python)
      put …                      ──────▶ pwrite to B

What is small is written by the caller when the thread has nothing to do: waking
it would cost more than the write. Parts and bytes that wait are bounded: `put`
waits for room. After a failure nothing is written any more, and every call
raises it.
"""

import threading
from collections import deque

cimport cython
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint64_t

from persistence.errors import StorageError

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_cond_init(pthread_cond_t*, void*)
    int pthread_cond_destroy(pthread_cond_t*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_broadcast(pthread_cond_t*)

cdef extern from "<unistd.h>" nogil:
    ssize_t pwrite(int fd, const void* data, size_t size, int64_t offset)

cdef enum:
    RING = 1024
    DIRECT_BYTES = 32768      # the caller writes so much itself, if the thread has nothing to do

BYTES_MAX = 64 << 20
"""Bytes that may wait."""

cdef struct Entry:
    const uint8_t* data       # NULL: a task in Python
    size_t size
    uint64_t mark


@cython.final
cdef class Spooler:
    """The thread; see the module.

    Parameters
    ----------
    bytes_max : int
        `put` waits while more is under way.
    """

    cdef pthread_mutex_t mutex
    cdef pthread_cond_t work
    cdef pthread_cond_t progress
    cdef Entry ring[RING]
    cdef int head
    cdef int count
    cdef uint64_t taken           # entries that are done, since the beginning
    cdef uint64_t dropped         # of these, the ones whose memory was given back
    cdef uint64_t waiting
    cdef uint64_t bytes_max
    cdef uint64_t reached
    cdef bint busy
    cdef bint stopping
    cdef bint failed
    cdef int error
    cdef int fd
    cdef int64_t offset
    cdef object path
    cdef object chunks
    cdef object tasks
    cdef object thread
    cdef object cause

    def __cinit__(self, uint64_t bytes_max=BYTES_MAX):
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.work, NULL)
        pthread_cond_init(&self.progress, NULL)
        self.bytes_max = bytes_max
        self.fd = -1
        self.path = ""
        self.chunks = deque()
        self.tasks = deque()
        self.thread = threading.Thread(target=self._run, name="events-write", daemon=True)

    def __dealloc__(self):
        pthread_cond_destroy(&self.progress)
        pthread_cond_destroy(&self.work)
        pthread_mutex_destroy(&self.mutex)

    def start(self, file, int64_t offset, uint64_t mark):
        """Start the thread, at the end of `file`; all up to `mark` is written already."""
        self.reached = mark
        self.use(file, offset)
        self.thread.start()

    def use(self, file, int64_t offset):
        """What follows goes to `file`; for tasks, and before `start`."""
        self.fd = file.fileno() if file is not None else -1
        self.path = file.path if file is not None else ""
        self.offset = offset

    @property
    def mark(self):
        """The last mark that is written."""
        cdef uint64_t mark
        with nogil:
            pthread_mutex_lock(&self.mutex)
            mark = self.reached
            pthread_mutex_unlock(&self.mutex)
        return mark

    cdef int write_all(self, const uint8_t* data, size_t size) noexcept nogil:
        """Write to the end of the file; 0, or the error. EINTR came before anything was written."""
        cdef ssize_t written
        while size:
            written = pwrite(self.fd, data, size, self.offset)
            if written < 0:
                if errno == EINTR:
                    continue
                return errno
            if written == 0:
                return -1
            data += written
            size -= written
            self.offset += written
        return 0

    cdef void fail_locked(self, int error) noexcept nogil:
        if not self.failed:
            self.failed = True
            self.error = error
        pthread_cond_broadcast(&self.progress)
        pthread_cond_signal(&self.work)

    cdef void finish_locked(self, int error, size_t size, uint64_t mark) noexcept nogil:
        self.busy = False
        self.waiting -= size
        self.taken += 1
        if error:
            self.fail_locked(error)
        elif not self.failed and mark:
            self.reached = mark
        pthread_cond_broadcast(&self.progress)

    cdef bint loop(self) noexcept nogil:
        """Write until there is a task for Python (True) or nothing left to do for ever (False)."""
        cdef Entry entry
        cdef int error
        cdef bint task = False
        pthread_mutex_lock(&self.mutex)
        while not self.failed:
            if self.count == 0 or self.busy:
                if self.stopping and self.count == 0:
                    break
                pthread_cond_wait(&self.work, &self.mutex)
                continue
            entry = self.ring[self.head]
            self.head = (self.head + 1) % RING
            self.count -= 1
            self.busy = True
            if entry.data == NULL:
                task = True
                break
            pthread_mutex_unlock(&self.mutex)
            error = self.write_all(entry.data, entry.size)
            pthread_mutex_lock(&self.mutex)
            self.finish_locked(error, entry.size, entry.mark)
        pthread_mutex_unlock(&self.mutex)
        return task

    def _run(self):
        cdef bint task
        cdef int error
        while True:
            with nogil:
                task = self.loop()
            if not task:
                return
            error = 0
            try:
                self.tasks.popleft()()
            except Exception as failure:  # Whatever it is: every caller hears the cause.
                self.cause = failure
                error = -1
            with nogil:
                pthread_mutex_lock(&self.mutex)
                self.finish_locked(error, 0, 0)
                pthread_mutex_unlock(&self.mutex)

    cdef bint push(self, const uint8_t* data, size_t size, uint64_t mark) noexcept nogil:
        """Hand over, or write at once; True if nothing is kept of it."""
        cdef bint direct = False
        cdef int error
        pthread_mutex_lock(&self.mutex)
        if data != NULL and size <= DIRECT_BYTES and self.count == 0 and not self.busy and not self.failed:
            self.busy = True
            self.waiting += size
            pthread_mutex_unlock(&self.mutex)
            error = self.write_all(data, size)
            pthread_mutex_lock(&self.mutex)
            self.finish_locked(error, size, mark)
            self.taken -= 1
            direct = True
        else:
            while not self.failed and (
                self.count == RING or (self.waiting and self.waiting + size > self.bytes_max)
            ):
                pthread_cond_wait(&self.progress, &self.mutex)
            if not self.failed:
                self.ring[(self.head + self.count) % RING] = Entry(data, size, mark)
                self.count += 1
                self.waiting += size
                if not self.busy:
                    pthread_cond_signal(&self.work)
        pthread_mutex_unlock(&self.mutex)
        return direct

    cdef void drop(self):
        """Give back the memory of what is written."""
        cdef uint64_t taken
        with nogil:
            pthread_mutex_lock(&self.mutex)
            taken = self.taken
            pthread_mutex_unlock(&self.mutex)
        while self.dropped < taken:
            self.chunks.popleft()
            self.dropped += 1

    def put(self, const uint8_t[::1] chunk not None, Py_ssize_t begin, Py_ssize_t end, uint64_t mark):
        """Write `chunk[begin:end]`, which must not change any more; then `mark` is reached.

        Raises
        ------
        StorageError
            Something failed, now or before.
        """
        cdef bint direct
        if not 0 <= begin < end <= chunk.shape[0]:
            raise ValueError(f"bytes {begin} to {end} of {chunk.shape[0]}")
        with nogil:
            direct = self.push(&chunk[begin], end - begin, mark)
        if not direct:
            self.chunks.append(chunk.base)
        self.check()
        self.drop()

    def put_task(self, task):
        """Call `task` on the thread, after what was put before and before what follows."""
        self.tasks.append(task)
        self.chunks.append(None)
        with nogil:
            self.push(NULL, 0, 0)
        self.check()

    def drain(self):
        """Until everything is written.

        Raises
        ------
        StorageError
        """
        with nogil:
            pthread_mutex_lock(&self.mutex)
            while not self.failed and (self.count or self.busy):
                pthread_cond_wait(&self.progress, &self.mutex)
            pthread_mutex_unlock(&self.mutex)
        self.check()
        self.drop()

    def check(self):
        """Raise what failed, if anything did."""
        if not self.failed:
            return
        if self.cause is not None:
            raise self.cause
        raise StorageError("write", self.path, max(self.error, 0), "events")

    def stop(self):
        """End the thread after what was put, or at once after a failure."""
        with nogil:
            pthread_mutex_lock(&self.mutex)
            self.stopping = True
            pthread_cond_signal(&self.work)
            pthread_mutex_unlock(&self.mutex)
        if self.thread.is_alive():
            self.thread.join()
        self.chunks.clear()
