/* What a VMM's main loop does with a session: it waits for what wants attention, and gives it. */
#ifndef DRIVE_H
#define DRIVE_H

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "double.h"

#define DEVICES_MAX 8

struct drive {
    vferry_session *session;
    struct double_device *devices;
    size_t count;
    int stop_when_ready;  /* a source: switchover as soon as the downtime would be short */
    int stopped;
    int restarts;         /* completions that said so */
    int estimates;
    const char *greeting; /* a message for the peer's embedder, once there is a peer */
    char message[64];     /* the last one that the peer's embedder sent */
    char opaque[64];      /* of the device that was announced last */
    vferry_event finished;
};

/* Fetches what waits and does what is wanted. Never blocks. 1 when the session has ended. */
static inline int drive_turn(struct drive *drive)
{
    vferry_event event;
    size_t count;
    int status;
    for (size_t i = 0; i < drive->count; i++)
        double_turn(&drive->devices[i]);
    for (;;) {
        memset(&event, 0xff, sizeof event);
        event.size = sizeof event;
        status = vferry_session_poll(drive->session, &event);
        if (status == VFERRY_ERR_EMPTY)
            return 0;
        if (status == VFERRY_ERR_ENDED)
            return 1;
        MUST(status);
        CHECK(event.size == sizeof event);
        switch (event.type) {
        case VFERRY_EVENT_CONNECTED:
            CHECK(event.wire_version >= vferry_wire_version_min());
            if (drive->greeting)
                MUST(vferry_session_send(drive->session, (const uint8_t *)drive->greeting,
                                         strlen(drive->greeting)));
            break;
        case VFERRY_EVENT_BEGIN:
            CHECK(event.payload_bytes < sizeof drive->opaque);
            MUST(vferry_session_payload(drive->session, (uint8_t *)drive->opaque,
                                        sizeof drive->opaque - 1, &count));
            CHECK(count == event.payload_bytes);
            drive->opaque[count] = 0;
            break;
        case VFERRY_EVENT_MESSAGE:
            CHECK(event.payload_bytes < sizeof drive->message);
            MUST(vferry_session_payload(drive->session, (uint8_t *)drive->message,
                                        sizeof drive->message - 1, &count));
            drive->message[count] = 0;
            break;
        case VFERRY_EVENT_ESTIMATE:
            drive->estimates++;
            /* Half a minute: on a busy machine, too, it is ready once the target has caught up. */
            if (drive->stop_when_ready && !drive->stopped &&
                vferry_event_is_ready(&event, 30000000000u)) {
                drive->stopped = 1;
                MUST(vferry_session_switchover(drive->session));
            }
            break;
        case VFERRY_EVENT_COMPLETION:
            printf("device %u epoch %u %s in %s: %s, seen by %s, errno %d, then %s, %llu bytes. %s\n",
                   event.device, event.epoch, vferry_epoch_ending_text(event.epoch_ending),
                   vferry_phase_text(event.phase), vferry_cause_text(event.cause),
                   vferry_observed_text(event.observed), event.os_error,
                   vferry_state_text(event.state), (unsigned long long)event.bytes, event.text);
            drive->restarts += event.epoch_ending == VFERRY_EPOCH_RESTARTED;
            break;
        case VFERRY_EVENT_FINISHED:
            drive->finished = event;
            break;
        default:
            break;
        }
    }
}

/* The fds that are readable when a turn has something to do. Returns how many there are. */
static inline size_t drive_fds(const struct drive *drive, struct pollfd *fds)
{
    MUST(vferry_session_event_fd(drive->session, &fds[0].fd));
    for (size_t i = 0; i < drive->count; i++)
        fds[i + 1].fd = drive->devices[i].wanted_fd;
    for (size_t i = 0; i <= drive->count; i++)
        fds[i].events = POLLIN;
    return drive->count + 1;
}

/* Runs a session to its end. */
static inline void drive_to_end(struct drive *drive)
{
    struct pollfd fds[DEVICES_MAX + 1];
    while (!drive_turn(drive)) {
        int ready = poll(fds, drive_fds(drive, fds), 60000);
        CHECK(ready > 0); /* A minute in which nothing happens. */
    }
}

/* Prints each device's content as `NAME BYTES HASH`, and checks it against the report. */
static inline void drive_contents(const struct drive *drive)
{
    for (size_t i = 0; i < drive->count; i++) {
        vferry_device_report report;
        size_t bytes;
        uint64_t hash = double_hash(&drive->devices[i], &bytes);
        memset(&report, 0xff, sizeof report);
        report.size = sizeof report;
        MUST(vferry_session_device_report(drive->session, (uint32_t)i, &report));
        CHECK(report.epoch_ending == VFERRY_EPOCH_COMPLETE && report.bytes == bytes && !report.stuck);
        printf("content %zu %zu %016llx\n", i, bytes, (unsigned long long)hash);
    }
}

static inline int open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;
    CHECK(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* Every fd is given back: those of a thread that stays with its streams for a moment when that ends. */
static inline void wait_for_fds(int before)
{
    for (int tries = 0; open_fds() > before && tries < 60000; tries++)
        poll(NULL, 0, 1);
    CHECK(open_fds() <= before);
}

#endif
