/* A driver in the program's own `ioctl`: what VFIO_DEVICE_FEATURE answers for the fds of a test. */
#ifndef DRIVER_H
#define DRIVER_H

#include <pthread.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "pair.h"

/* vfio.h */
#define DEVICE_RESET 0x3b6f
#define DEVICE_FEATURE 0x3b75
#define GET_PRECOPY_INFO 0x3b79
#define FEATURE_MASK 0xffffu
#define FEATURE_SET (1u << 17)
#define FEATURE_MIGRATION 1
#define FEATURE_MIG_DEVICE_STATE 2
#define MIGRATION_STOP_COPY 1u

struct feature {
    uint32_t argsz, flags;
    union {
        uint64_t migration;
        struct {
            uint32_t state;
            int32_t data_fd;
        };
    } payload;
};

/* The one device, in every fd that is a duplicate of `device_fd`. */
static struct driver {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int device_fd;
    int state;
    int holds; /* SET_STATE to this state does not return */
    int held;  /* it is being held */
    int interrupts; /* GET_STATE says EINTR, without an end */
    unsigned gets, resets;
    int data_fd; /* what a saving or resuming state gives, once */
} driver = {
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .changed = PTHREAD_COND_INITIALIZER,
    .device_fd = -1,
};

static inline int same_file(int fd)
{
    struct stat one, other;
    return fstat(fd, &one) == 0 && fstat(driver.device_fd, &other) == 0 &&
           one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

/* In `state`, and what the next data fd is. A state of -1 holds nothing. */
static inline void driver_is(int state, int holds, int data_fd)
{
    pthread_mutex_lock(&driver.mutex);
    driver.state = state;
    driver.holds = holds;
    driver.data_fd = data_fd;
    driver.held = driver.interrupts = 0;
    driver.gets = driver.resets = 0;
    pthread_mutex_unlock(&driver.mutex);
}

static inline int driver_state(void)
{
    int state;
    pthread_mutex_lock(&driver.mutex);
    state = driver.state;
    pthread_mutex_unlock(&driver.mutex);
    return state;
}

/* Waits until the driver holds a call. */
static inline void driver_holds(void)
{
    pthread_mutex_lock(&driver.mutex);
    while (!driver.held)
        pthread_cond_wait(&driver.changed, &driver.mutex);
    pthread_mutex_unlock(&driver.mutex);
}

/* The call that is held returns. */
static inline void driver_answers(void)
{
    pthread_mutex_lock(&driver.mutex);
    driver.holds = -1;
    pthread_cond_broadcast(&driver.changed);
    pthread_mutex_unlock(&driver.mutex);
}

static inline int feature(struct feature *asked)
{
    int set = (asked->flags & FEATURE_SET) != 0;
    switch (asked->flags & FEATURE_MASK) {
    case FEATURE_MIGRATION:
        asked->payload.migration = MIGRATION_STOP_COPY;
        return 0;
    case FEATURE_MIG_DEVICE_STATE:
        if (!set) {
            driver.gets++;
            asked->payload.state = (uint32_t)driver.state;
            return driver.interrupts ? EINTR : 0;
        }
        while (driver.holds == (int)asked->payload.state) {
            driver.held = 1;
            pthread_cond_broadcast(&driver.changed);
            pthread_cond_wait(&driver.changed, &driver.mutex);
        }
        driver.state = (int)asked->payload.state;
        asked->payload.data_fd = -1;
        if (driver.state == VFERRY_STATE_STOP_COPY || driver.state == VFERRY_STATE_RESUMING) {
            asked->payload.data_fd = driver.data_fd;
            driver.data_fd = -1;
        }
        return 0;
    default:
        return ENOTTY;
    }
}

/* libc's, in its place: the engine's calls come here, too. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    void *argument;
    int error;
    va_start(list, request);
    argument = va_arg(list, void *);
    va_end(list);
    if ((request != DEVICE_FEATURE && request != DEVICE_RESET) || !same_file(fd))
        return (int)syscall(SYS_ioctl, fd, request, argument);
    pthread_mutex_lock(&driver.mutex);
    if (request == DEVICE_RESET) {
        driver.resets++;
        driver.state = VFERRY_STATE_RUNNING;
        error = 0;
    } else {
        error = feature(argument);
    }
    pthread_mutex_unlock(&driver.mutex);
    errno = error;
    return error ? -1 : 0;
}

#endif
