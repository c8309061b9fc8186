/* Calls that are answered with the status of a misuse. */
#ifndef MISUSE_H
#define MISUSE_H

#include "drive.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int checks;

/* A call answers this, and the last error has a sentence for whatever is a fault. */
#define ANSWERS(expected, call) answers((expected), (call), #call, __FILE__, __LINE__)
static void answers(int expected, int found, const char *call, const char *file, int line)
{
    char why[VFERRY_TEXT_BYTES] = "";
    checks++;
    if (found != expected) {
        vferry_last_error(why, sizeof why);
        fprintf(stderr, "%s:%d: %s: %d (%s: %s), not %d\n", file, line, call, found,
                vferry_status_text(found), why, expected);
        exit(1);
    }
    if (found >= 100)
        CHECK(vferry_last_error(why, sizeof why) > 0 && why[0]);
}

/* An fd number under which nothing is open. */
static inline int closed_fd(void)
{
    int fd = fcntl(0, F_DUPFD_CLOEXEC, 900); /* A number that nothing takes meanwhile. */
    CHECK(fd >= 0 && close(fd) == 0);
    return fd;
}

static inline int is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

#endif
