/* A VMM that takes devices in: target DEVICES PORT_FILE */
#include "drive.h"

#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static struct double_device devices[DEVICES_MAX];
    vferry_device *handles[DEVICES_MAX];
    vferry_options *options = test_options();
    vferry_listener *listener = NULL;
    struct drive drive = {.devices = devices};
    vferry_report report = {.size = sizeof report};
    int fds[VFERRY_STREAMS_MAX];
    uint16_t port;
    size_t streams;
    FILE *file;

    if (argc != 3)
        return 2;
    drive.count = (size_t)atoi(argv[1]);
    CHECK(drive.count <= DEVICES_MAX);
    MUST(vferry_listener_new("127.0.0.1:0", &listener));
    MUST(vferry_listener_port(listener, &port));
    file = fopen(argv[2], "w");
    CHECK(file && fprintf(file, "%u\n", port) > 0 && fclose(file) == 0);

    for (size_t i = 0; i < drive.count; i++) {
        char name[32];
        snprintf(name, sizeof name, "net%zu", i);
        double_target(&devices[i], name);
        handles[i] = devices[i].ferry;
    }
    MUST(vferry_listener_accept(listener, 60000, fds, VFERRY_STREAMS_MAX, &streams));
    vferry_listener_free(&listener);
    MUST(vferry_session_target(options, handles, drive.count, fds, streams, &drive.session));
    vferry_options_free(&options);

    drive_to_end(&drive);
    MUST(vferry_session_report(drive.session, &report));
    printf("%s\n", vferry_ending_text(report.ending));
    CHECK(report.ending == VFERRY_ENDING_RUNNING && report.running_ns > report.started_ns);
    CHECK(strcmp(drive.opaque, "config space") == 0 && strcmp(drive.message, "hello") == 0);
    drive_contents(&drive);

    MUST(vferry_session_wait_closed(drive.session, 60000));
    vferry_session_free(&drive.session);
    for (size_t i = 0; i < drive.count; i++) {
        CHECK(devices[i].state == VFERRY_STATE_RUNNING);
        double_free(&devices[i]);
    }
    return 0;
}
