#include "double.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void must(int status, const char *call, const char *file, int line)
{
    char why[VFERRY_TEXT_BYTES];
    if (status == VFERRY_OK)
        return;
    vferry_last_error(why, sizeof why);
    fprintf(stderr, "%s:%d: %s: %s: %s\n", file, line, call, vferry_status_text(status), why);
    exit(1);
}

_Noreturn void fail(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    exit(1);
}

vferry_options *test_options(void)
{
    vferry_options *options = NULL;
    const char *backend = getenv("FERRY_BACKEND");
    MUST(vferry_options_new(&options));
    MUST(vferry_options_set_workers(options, 2));
    MUST(vferry_options_set_precopy_poll_ms(options, 2));
    MUST(vferry_options_set_peer_silence_ms(options, 60000));
    if (backend && strcmp(backend, "syscalls") == 0)
        MUST(vferry_options_set_backend(options, VFERRY_BACKEND_SYSCALLS));
    return options;
}

static uint64_t next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Adds state: half of it compresses, a part of it is zero. */
static void grow(struct double_device *device, size_t bytes)
{
    uint64_t block[512];
    while (bytes > 0) {
        size_t part = bytes < sizeof block ? bytes : sizeof block;
        uint64_t kind = next(&device->seed) % 4;
        for (size_t i = 0; i < sizeof block / sizeof *block; i++)
            block[i] = kind == 0 ? 0 : kind == 1 ? i : next(&device->seed);
        CHECK(pwrite(device->content, block, part, (off_t)device->bytes) == (ssize_t)part);
        device->bytes += part;
        bytes -= part;
    }
}

/* Begins a saving or resuming session: a data fd that is read or written from the start. */
static int session(struct double_device *device)
{
    int fd;
    if (device->content >= 0)
        close(device->content);
    device->content = memfd_create("state", MFD_CLOEXEC);
    CHECK(device->content >= 0);
    device->bytes = 0;
    device->asked = 0;
    fd = dup(device->content);
    CHECK(fd >= 0);
    return fd;
}

static void make(struct double_device *device, const char *name, uint32_t host, uint32_t flags)
{
    device->content = -1;
    device->state = VFERRY_STATE_RUNNING;
    MUST(vferry_device_embedded(name, host, flags, -1, &device->ferry));
    MUST(vferry_device_event_fd(device->ferry, &device->wanted_fd));
}

void double_source(struct double_device *device, const char *name, struct double_plan plan)
{
    memset(device, 0, sizeof *device);
    device->plan = plan;
    device->resets_left = plan.resets;
    device->seed = 88172645463325252u;
    for (const char *c = name; *c; c++)
        device->seed = device->seed * 31 + (uint64_t)*c;
    make(device, name, VFERRY_HOST_SOURCE,
         plan.initial_bytes ? VFERRY_EMBEDDED_PRECOPY | VFERRY_EMBEDDED_PRECOPY_INFO : 0);
    MUST(vferry_device_set_stop_copy_length(device->ferry, plan.rest_bytes));
}

void double_target(struct double_device *device, const char *name)
{
    memset(device, 0, sizeof *device);
    make(device, name, VFERRY_HOST_TARGET, 0);
}

/* The precopy info: new data appears only when it is asked for, as with mlx5. */
static void precopy_info(struct double_device *device)
{
    size_t dirty = 0;
    if (device->asked++ == 0) {
        if (device->resets_left > 0) {
            /* The guest resets its device now, and the VMM's ioctl shows it. */
            device->resets_left--;
            device->state = VFERRY_STATE_RUNNING;
            MUST(vferry_device_state_done(device->ferry, VFERRY_STATE_RUNNING, -1, 0));
            MUST(vferry_device_precopy_info_done(device->ferry, 0, 0, 0, EINVAL));
            return;
        }
        dirty = device->plan.dirty_bytes;
        grow(device, dirty);
    }
    MUST(vferry_device_precopy_info_done(device->ferry, 0, dirty, 0, 0));
}

uint32_t double_turn(struct double_device *device)
{
    uint32_t want;
    int fd = -1;
    MUST(vferry_device_wanted(device->ferry, &want));
    switch (want) {
    case VFERRY_WANT_NOTHING:
        return want;
    case VFERRY_WANT_PRECOPY_INFO:
        precopy_info(device);
        return want;
    case VFERRY_WANT_RESET:
        device->state = VFERRY_STATE_RUNNING;
        MUST(vferry_device_reset_done(device->ferry, 0));
        return want;
    case VFERRY_WANT_PRE_COPY:
        fd = session(device);
        grow(device, device->plan.initial_bytes);
        break;
    case VFERRY_WANT_STOP_COPY:
        if (device->state == VFERRY_STATE_RUNNING)
            fd = session(device);
        grow(device, device->plan.rest_bytes);
        break;
    case VFERRY_WANT_RESUMING:
        fd = session(device);
        break;
    default:
        break;
    }
    device->state = (int)want;
    MUST(vferry_device_state_done(device->ferry, (int)want, fd, 0));
    return want;
}

uint64_t double_hash(const struct double_device *device, size_t *bytes)
{
    static unsigned char block[1 << 16];
    uint64_t hash = 14695981039346656037u;
    off_t at = 0;
    ssize_t got = 0;
    while (device->content >= 0 && (got = pread(device->content, block, sizeof block, at)) > 0) {
        for (ssize_t i = 0; i < got; i++)
            hash = (hash ^ block[i]) * 1099511628211u;
        at += got;
    }
    CHECK(got == 0);
    *bytes = (size_t)at;
    return hash;
}

void double_free(struct double_device *device)
{
    vferry_device_free(&device->ferry);
    CHECK(device->ferry == NULL);
    if (device->content >= 0)
        close(device->content);
}
