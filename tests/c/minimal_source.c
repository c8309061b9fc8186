/* The least that a VMM does to migrate a device away. The device's state is a file here. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>
#include <vfio_ferry.h>

static int fail(const char *what)
{
    char why[512];
    vferry_last_error(why, sizeof why);
    fprintf(stderr, "%s: %s\n", what, why);
    return 1;
}

int main(int argc, char **argv)
{
    vferry_device *device = NULL;
    vferry_session *session = NULL;
    vferry_report report = {.size = sizeof report};
    int streams[2], wanted_fd, event_fd;

    if (argc != 3) {
        fprintf(stderr, "usage: %s HOST:PORT FILE\n", argv[0]);
        return 2;
    }
    /* A VMM passes its VFIO device fd for -1, and VFERRY_EMBEDDED_PRECOPY if the device has that. */
    if (vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 0, -1, &device) ||
        vferry_connect(argv[1], 10000, streams, 2) ||
        vferry_session_source(NULL, &device, 1, streams, 2, &session))
        return fail("cannot start");
    vferry_device_event_fd(device, &wanted_fd);
    vferry_session_event_fd(session, &event_fd);

    /* Here the vCPUs are paused. */
    vferry_session_switchover(session);
    while (vferry_session_report(session, &report) == VFERRY_ERR_NOT_ENDED) {
        struct pollfd fds[] = {{wanted_fd, POLLIN, 0}, {event_fd, POLLIN, 0}};
        vferry_event event = {.size = sizeof event};
        uint32_t want;

        poll(fds, 2, -1);
        vferry_device_wanted(device, &want);
        if (want == VFERRY_WANT_STOP_COPY) /* A VMM makes the ioctl, which gives the data fd. */
            vferry_device_state_done(device, want, open(argv[2], O_RDONLY), 0);
        while (vferry_session_poll(session, &event) == VFERRY_OK)
            if (event.type == VFERRY_EVENT_COMPLETION)
                printf("%s %s\n", vferry_epoch_ending_text(event.epoch_ending), event.text);
    }
    vferry_session_wait_closed(session, VFERRY_NO_LIMIT); /* Before the process ends. */
    vferry_session_free(&session);
    vferry_device_free(&device);
    printf("%s %s\n", vferry_ending_text(report.ending), report.text);
    return report.ending == VFERRY_ENDING_HANDED_OVER ? 0 : 1; /* RETURNED: resume the vCPUs. */
}
