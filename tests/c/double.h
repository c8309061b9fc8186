/*
 * A VFIO device in user space, embedded: what a VMM's side of it does, over
 * files in memory. It is made of a seed; a device that took the state in can
 * be compared with one that gave it.
 */
#ifndef DOUBLE_H
#define DOUBLE_H

#include <stddef.h>
#include <stdint.h>
#include <vfio_ferry.h>

struct double_plan {
    size_t initial_bytes; /* PRE_COPY data; 0: the device has no PRE_COPY */
    size_t dirty_bytes;   /* what changes once the initial data was read */
    size_t rest_bytes;    /* STOP_COPY data */
    int resets;           /* resets, each seen as EINVAL from GET_PRECOPY_INFO */
};

struct double_device {
    vferry_device *ferry;
    struct double_plan plan;
    int wanted_fd;   /* readable while the engine wants something */
    int content;     /* a file in memory; the engine has an fd of its own to it */
    size_t bytes;    /* of it */
    uint64_t seed;
    int asked;       /* GET_PRECOPY_INFO calls in this epoch */
    int resets_left;
    int state;       /* as the VMM left it */
};

/* What the test has found wrong ends the program. */
#define MUST(call) must((call), #call, __FILE__, __LINE__)
#define CHECK(truth) ((truth) ? (void)0 : fail(#truth, __FILE__, __LINE__))
void must(int status, const char *call, const char *file, int line);
_Noreturn void fail(const char *what, const char *file, int line);

void double_source(struct double_device *device, const char *name, struct double_plan plan);
void double_target(struct double_device *device, const char *name);

/* Does what the engine wants done, if anything. Never blocks. Returns the vferry_want. */
uint32_t double_turn(struct double_device *device);

/* A hash of what the device gave or took, and how many bytes those were. */
uint64_t double_hash(const struct double_device *device, size_t *bytes);

void double_free(struct double_device *device);

/* Options of the session as the environment has them: FERRY_BACKEND=syscalls. */
vferry_options *test_options(void);

#endif
