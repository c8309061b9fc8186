/* Two sessions in one process, each with one embedded device, whose answers a test gives by hand. */
#ifndef PAIR_H
#define PAIR_H

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drive.h"

static const char opaque[] = "config space";
#define OPAQUE_BYTES (sizeof opaque - 1)

struct host {
    vferry_device *device;
    vferry_session *session;
};

struct pair {
    struct host source, target;
};

static inline int is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* A data fd that gives `bytes` bytes. */
static inline int data_fd(size_t bytes)
{
    int fd = memfd_create("state", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    return fd;
}

/* Takes the options and the two ends of a stream. */
static inline void start_over(struct pair *pair, uint32_t flags, uint32_t on_reset, vferry_options *options,
                              const int fds[2])
{
    memset(pair, 0, sizeof *pair);
    MUST(vferry_device_embedded("net0", VFERRY_HOST_SOURCE, flags, -1, &pair->source.device));
    MUST(vferry_device_embedded("net0", VFERRY_HOST_TARGET, 0, -1, &pair->target.device));
    MUST(vferry_device_set_on_reset(pair->source.device, on_reset, 1, VFERRY_ON_RESET_ABORT));
    MUST(vferry_device_set_opaque(pair->source.device, (const uint8_t *)opaque, OPAQUE_BYTES));
    MUST(vferry_session_source(options, &pair->source.device, 1, &fds[0], 1, &pair->source.session));
    MUST(vferry_session_target(options, &pair->target.device, 1, &fds[1], 1, &pair->target.session));
    vferry_options_free(&options);
}

/* Takes the options. */
static inline void start_with(struct pair *pair, uint32_t flags, uint32_t on_reset, vferry_options *options)
{
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    start_over(pair, flags, on_reset, options, fds);
}

static inline void start(struct pair *pair, uint32_t flags)
{
    start_with(pair, flags, VFERRY_ON_RESET_ABORT, test_options());
}

static inline void stop(struct pair *pair)
{
    vferry_session_free(&pair->source.session);
    vferry_session_free(&pair->target.session);
    vferry_device_free(&pair->source.device);
    vferry_device_free(&pair->target.device);
}

/* Waits until the engine wants this; it wants nothing else before. */
static inline void wants(struct host *host, uint32_t expected)
{
    struct pollfd fd = {.events = POLLIN};
    uint32_t want;
    MUST(vferry_device_event_fd(host->device, &fd.fd));
    CHECK(poll(&fd, 1, 60000) == 1);
    MUST(vferry_device_wanted(host->device, &want));
    CHECK(want == expected);
}

/* The next event of a type. Others are dropped. */
static inline vferry_event event_of(struct host *host, uint32_t type)
{
    vferry_event event;
    do {
        memset(&event, 0xff, sizeof event);
        event.size = sizeof event;
        MUST(vferry_session_wait(host->session, 60000, &event));
    } while (event.type != type);
    return event;
}

static inline vferry_report finish(struct host *host)
{
    vferry_report report = {.size = sizeof report};
    MUST(vferry_session_finish(host->session, 60000, &report));
    return report;
}

/* Runs tests, each of which gives back every fd that it took. */
static inline int run_tests(void (*const *tests)(void), size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int before = open_fds();
        tests[i]();
        wait_for_fds(before);
    }
    return 0;
}

#endif
