/* A disk that takes its time, preloaded into one process of a test: each flush of the files named so waits until the test lets it
   pass. The numbers are shared with the test: flushes that may pass, that have begun, that are done, and those of the file that
   the log is moved into, which always pass. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct numbers { uint64_t allowed, begun, done, moved; };

static struct numbers *numbers;
static const char *database;
static int wake = -1;

__attribute__((constructor)) static void prepare(void) {
    const char *shared = getenv("PALISADE_TEST_DISK"), *fifo = getenv("PALISADE_TEST_DISK_WAKE");
    int file = shared ? open(shared, O_RDWR | O_CLOEXEC) : -1;
    void *map = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *numbers, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    wake = fifo ? open(fifo, O_RDWR | O_CLOEXEC) : -1;
    database = getenv("PALISADE_TEST_DISK_DATABASE");
    if (map == MAP_FAILED || wake < 0 || !database) _exit(99); /* A test with a fast disk instead would prove nothing. */
    close(file);
    numbers = map;
}

static int ends(const char *text, ssize_t length, const char *end) {
    ssize_t more = (ssize_t)strlen(end);
    return length >= more && memcmp(text + length - more, end, (size_t)more) == 0;
}

static int flush(long call, int file) {
    char link[64], path[4096], log[4096], byte;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    snprintf(log, sizeof log, "%s-wal", database);
    ssize_t length = readlink(link, path, sizeof path);
    int logged = ends(path, length, log), moved = ends(path, length, database);
    if (logged) {
        uint64_t number = __atomic_fetch_add(&numbers->begun, 1, __ATOMIC_SEQ_CST);
        while (number >= __atomic_load_n(&numbers->allowed, __ATOMIC_SEQ_CST))
            if (read(wake, &byte, 1) < 0 && errno != EINTR) _exit(98);
    }
    int result = (int)syscall(call, file);
    if (logged) __atomic_fetch_add(&numbers->done, 1, __ATOMIC_SEQ_CST);
    if (moved) __atomic_fetch_add(&numbers->moved, 1, __ATOMIC_SEQ_CST);
    return result;
}

int fsync(int file) { return flush(SYS_fsync, file); }

int fdatasync(int file) { return flush(SYS_fdatasync, file); }
