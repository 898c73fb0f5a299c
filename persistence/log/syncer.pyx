"""The sync thread: fdatasync → durable sequence → wake whoever waits. No GIL on that way.

    matching thread                          sync thread
      write a group
      submit(fd, sequence) ── work ────────▶ take the oldest (fd, sequence)
      (goes on)                              fdatasync(fd)
      collect() ◀───────── eventfd ───────── durable = sequence

Groups that are written while a sync runs join into one entry (same file): the
next sync covers them all. So the ring holds one entry but for segment changes,
which are a task in Python (rename, directory sync) between two entries; when
it is full, `submit` waits. An entry is taken when a sync begins, thus a sync
covers exactly what was written before it began.

Who waits for what it submits (`submit` without waking, then `wait`) does the sync
itself, on its own thread: with one command in flight that saves both thread
switches and the eventfd. If the thread is at it already, it waits for the thread.

After a failure nothing moves any more: `durable` stays, the ring is never
looked at again, every call says what failed.
"""

import os
import threading
from collections import deque

cimport cython
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint64_t

from persistence.errors import LogFailed

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
    int fdatasync(int fd)
    ssize_t read(int fd, void* data, size_t size)
    ssize_t write(int fd, const void* data, size_t size)

cdef extern from *:
    """
    #define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    uint64_t load_acquire(uint64_t* p) nogil
    void store_release(uint64_t* p, uint64_t v) nogil

cdef enum:
    RING = 8
    NO_FILE = -1          # an entry that stands for a task in Python

cdef struct Entry:
    int fd
    uint64_t sequence


@cython.final
cdef class Syncer:
    """Syncs real files; see the module.

    Parameters
    ----------
    durable : int
        The sequence that is durable to begin with.
    completion_fd : int
        A non-blocking eventfd, written when the thread moved `durable`, or something failed.
    """

    cdef pthread_mutex_t mutex
    cdef pthread_cond_t work
    cdef pthread_cond_t progress
    cdef Entry ring[RING]
    cdef int head
    cdef int count
    cdef bint busy
    cdef bint stopping
    cdef bint failed
    cdef int error
    cdef bint announced
    cdef int waiters
    cdef uint64_t durable_sequence
    cdef int completion_fd
    cdef object tasks
    cdef object thread
    cdef object cause

    def __cinit__(self, uint64_t durable, int completion_fd):
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.work, NULL)
        pthread_cond_init(&self.progress, NULL)
        self.durable_sequence = durable
        self.completion_fd = completion_fd
        self.tasks = deque()
        self.thread = threading.Thread(target=self._run, name="log-sync", daemon=True)

    def __dealloc__(self):
        pthread_cond_destroy(&self.progress)
        pthread_cond_destroy(&self.work)
        pthread_mutex_destroy(&self.mutex)

    @property
    def durable(self):
        """Last sequence known to be on disk."""
        return load_acquire(&self.durable_sequence)

    def start(self):
        """Start the thread."""
        self.thread.start()

    cdef void announce(self) noexcept nogil:
        """Make the eventfd readable. A full counter (EAGAIN) is readable already."""
        cdef uint64_t one = 1
        self.announced = True
        while write(self.completion_fd, &one, 8) < 0 and errno == EINTR:
            pass

    cdef void fail_locked(self, int error) noexcept nogil:
        if not self.failed:
            self.failed = True
            self.error = error
            self.announce()
        pthread_cond_broadcast(&self.progress)
        pthread_cond_signal(&self.work)

    cdef void sync_locked(self, bint announce) noexcept nogil:
        """Take the oldest entry, which is a file, and sync it. The mutex is held but during the sync."""
        cdef Entry entry = self.ring[self.head]
        cdef int error = 0
        self.head = (self.head + 1) % RING
        self.count -= 1
        self.busy = True
        pthread_mutex_unlock(&self.mutex)
        # EINTR is a failure like any other: what was written back is unknown.
        if fdatasync(entry.fd) != 0:
            error = errno
        pthread_mutex_lock(&self.mutex)
        self.busy = False
        if self.failed:
            pthread_cond_broadcast(&self.progress)
        elif error:
            self.fail_locked(error)
        else:
            if entry.sequence > self.durable_sequence:
                store_release(&self.durable_sequence, entry.sequence)
                if announce:
                    self.announce()
            if self.waiters:
                pthread_cond_broadcast(&self.progress)
            if self.count:
                pthread_cond_signal(&self.work)

    cdef bint loop(self) noexcept nogil:
        """Sync until there is a task for Python (True) or nothing left to do for ever (False)."""
        cdef bint task = False
        pthread_mutex_lock(&self.mutex)
        while not self.failed:
            if self.count == 0 or self.busy:
                if self.stopping and self.count == 0:
                    break
                pthread_cond_wait(&self.work, &self.mutex)
            elif self.ring[self.head].fd == NO_FILE:
                self.head = (self.head + 1) % RING
                self.count -= 1
                self.busy = True
                task = True
                break
            else:
                self.sync_locked(True)
        pthread_mutex_unlock(&self.mutex)
        return task

    def _run(self):
        cdef bint task
        while True:
            with nogil:
                task = self.loop()
            if not task:
                return
            try:
                self.tasks.popleft()()
            except Exception as error:  # Whatever it is: fail-stop, and every caller hears the cause.
                self.fail(error)
            finally:
                with nogil:
                    pthread_mutex_lock(&self.mutex)
                    self.busy = False
                    pthread_cond_broadcast(&self.progress)
                    pthread_mutex_unlock(&self.mutex)

    cdef bint push(self, int fd, uint64_t sequence, bint wake) noexcept nogil:
        cdef int last
        cdef bint done = False
        pthread_mutex_lock(&self.mutex)
        while not self.failed:
            last = (self.head + self.count - 1) % RING
            if self.count and fd != NO_FILE and self.ring[last].fd == fd:
                self.ring[last].sequence = sequence
            elif self.count < RING:
                self.ring[(self.head + self.count) % RING] = Entry(fd, sequence)
                self.count += 1
            else:
                self.waiters += 1
                pthread_cond_wait(&self.progress, &self.mutex)
                self.waiters -= 1
                continue
            done = True
            if wake and not self.busy:
                pthread_cond_signal(&self.work)
            break
        pthread_mutex_unlock(&self.mutex)
        return done

    def submit(self, file, uint64_t sequence, bint wake=True):
        """All up to `sequence` is written to `file`: sync it.

        Without `wake` the thread is left asleep, for a caller that goes on to `wait`.

        Raises
        ------
        LogFailed
        """
        cdef int fd = file.fileno()
        cdef bint done
        with nogil:
            done = self.push(fd, sequence, wake)
        if not done:
            self.check()

    def submit_task(self, task):
        """Call `task` on the sync thread, after what was submitted before and before what follows."""
        cdef bint done
        self.tasks.append(task)
        with nogil:
            done = self.push(NO_FILE, 0, True)
        if not done:
            self.check()

    cdef void await_sequence(self, uint64_t sequence) noexcept nogil:
        pthread_mutex_lock(&self.mutex)
        while not self.failed and self.durable_sequence < sequence:
            if not self.busy and self.count and self.ring[self.head].fd != NO_FILE:
                self.sync_locked(False)
            else:
                self.waiters += 1
                pthread_cond_wait(&self.progress, &self.mutex)
                self.waiters -= 1
        pthread_mutex_unlock(&self.mutex)

    def wait(self, uint64_t sequence):
        """Until `sequence`, which was submitted, is durable.

        Raises
        ------
        LogFailed
        """
        with nogil:
            self.await_sequence(sequence)
        self.check()

    def collect(self):
        """Clear the eventfd; the durable sequence.

        Raises
        ------
        LogFailed
        """
        cdef uint64_t count
        if self.announced:
            with nogil:
                pthread_mutex_lock(&self.mutex)
                self.announced = False
                # Non-blocking, and it was written: EAGAIN would mean that there is nothing to clear.
                while read(self.completion_fd, &count, 8) < 0 and errno == EINTR:
                    pass
                pthread_mutex_unlock(&self.mutex)
        self.check()
        return load_acquire(&self.durable_sequence)

    def drain(self):
        """Until everything submitted is done.

        Raises
        ------
        LogFailed
        """
        with nogil:
            pthread_mutex_lock(&self.mutex)
            while not self.failed and (self.count or self.busy):
                self.waiters += 1
                pthread_cond_wait(&self.progress, &self.mutex)
                self.waiters -= 1
            pthread_mutex_unlock(&self.mutex)
        self.check()

    def check(self):
        """Raise what failed, if anything did."""
        if self.failed:
            if self.error:
                reason = os.strerror(self.error)
                raise LogFailed(f"sync of the log failed: {reason}; stop, and recover from disk")
            raise LogFailed(f"the log failed: {self.cause}; stop, and recover from disk") from self.cause

    def fail(self, cause):
        """Something else failed (a write, a task): nothing becomes durable any more."""
        if self.cause is None:
            self.cause = cause
        with nogil:
            pthread_mutex_lock(&self.mutex)
            self.fail_locked(0)
            pthread_mutex_unlock(&self.mutex)

    def stop(self):
        """End the thread, after what was submitted (or at once after a failure)."""
        with nogil:
            pthread_mutex_lock(&self.mutex)
            self.stopping = True
            pthread_cond_signal(&self.work)
            pthread_mutex_unlock(&self.mutex)
        if self.thread.is_alive():
            self.thread.join()
