/* The least that a VMM does to take a device in. The device's state becomes a file here. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
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
    vferry_listener *listener = NULL;
    vferry_device *device = NULL;
    vferry_session *session = NULL;
    vferry_report report = {.size = sizeof report};
    int streams[VFERRY_STREAMS_MAX], wanted_fd, event_fd;
    size_t count;

    if (argc != 3) {
        fprintf(stderr, "usage: %s IP:PORT FILE\n", argv[0]);
        return 2;
    }
    if (vferry_device_embedded("net0", VFERRY_HOST_TARGET, 0, -1, &device) ||
        vferry_listener_new(argv[1], &listener) ||
        vferry_listener_accept(listener, 60000, streams, VFERRY_STREAMS_MAX, &count) ||
        vferry_session_target(NULL, &device, 1, streams, count, &session))
        return fail("cannot start");
    vferry_device_event_fd(device, &wanted_fd);
    vferry_session_event_fd(session, &event_fd);

    while (vferry_session_report(session, &report) == VFERRY_ERR_NOT_ENDED) {
        struct pollfd fds[] = {{wanted_fd, POLLIN, 0}, {event_fd, POLLIN, 0}};
        vferry_event event = {.size = sizeof event};
        uint32_t want;

        poll(fds, 2, -1);
        vferry_device_wanted(device, &want);
        if (want == VFERRY_WANT_RESUMING) /* A VMM makes these ioctls; this one gives the data fd. */
            vferry_device_state_done(device, want, open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0600), 0);
        else if (want == VFERRY_WANT_STOP || want == VFERRY_WANT_RUNNING)
            vferry_device_state_done(device, want, -1, 0);
        while (vferry_session_poll(session, &event) == VFERRY_OK)
            if (event.type == VFERRY_EVENT_COMPLETION)
                printf("%s %s\n", vferry_epoch_ending_text(event.epoch_ending), event.text);
    }
    vferry_session_wait_closed(session, VFERRY_NO_LIMIT); /* Before the process ends. */
    vferry_session_free(&session);
    vferry_device_free(&device);
    vferry_listener_free(&listener);
    printf("%s %s\n", vferry_ending_text(report.ending), report.text);
    return report.ending == VFERRY_ENDING_RUNNING ? 0 : 1; /* RUNNING: start the vCPUs. */
}
