/* What no session can be made of, and calls to a session in the wrong order, are answered with their
 * status, and change nothing. */
#include "misuse.h"

#include <stddef.h>

/* Connected sockets. */
static void sockets(int fds[2])
{
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
}

/* What no session can be made of leaves the fds and the devices with the caller. */
static void sessions_that_are_none(void)
{
    vferry_options *options = NULL;
    vferry_session *session = NULL;
    vferry_device *twice[2], *names[2], *none = NULL, *target = NULL, *null = NULL, *same = NULL;
    int fds[2], pipes[2], both[2], file = open("/dev/null", O_RDWR | O_CLOEXEC);
    int closed;

    sockets(fds);
    CHECK(pipe2(pipes, O_CLOEXEC) == 0);
    closed = closed_fd();
    MUST(vferry_options_new(&options));
    MUST(vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 0, -1, &twice[0]));
    MUST(vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 0, -1, &same));
    MUST(vferry_device_embedded("net0", VFERRY_HOST_TARGET, 0, -1, &target));
    MUST(vferry_device_from_fd("null", file, &null));
    twice[1] = twice[0];

#define SOURCE(devices, count, fds, streams) \
    vferry_session_source(options, devices, count, fds, streams, &session)
    ANSWERS(VFERRY_ERR_NULL, vferry_session_source(NULL, twice, 1, fds, 1, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_target(NULL, &target, 1, fds, 1, NULL));
    ANSWERS(VFERRY_ERR_NULL, SOURCE(NULL, 1, fds, 1));
    ANSWERS(VFERRY_ERR_NULL, SOURCE(&none, 1, fds, 1));
    ANSWERS(VFERRY_ERR_NULL, SOURCE(twice, 1, NULL, 1));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, 0, fds, 1));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, VFERRY_DEVICES_MAX + 1, fds, 1));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, SIZE_MAX, fds, 1));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, 1, fds, 0));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, 1, fds, VFERRY_STREAMS_MAX + 1));
    ANSWERS(VFERRY_ERR_DEVICE_IN_USE, SOURCE(twice, 2, fds, 1));
    twice[1] = same;
    ANSWERS(VFERRY_ERR_DEVICE_NAME, SOURCE(twice, 2, fds, 1));
    ANSWERS(VFERRY_ERR_WRONG_HOST, SOURCE(&target, 1, fds, 1));
    ANSWERS(VFERRY_ERR_WRONG_HOST, vferry_session_target(NULL, twice, 1, fds, 1, &session));
    ANSWERS(VFERRY_ERR_NOT_MIGRATABLE, SOURCE(&null, 1, fds, 1));
    ANSWERS(VFERRY_ERR_BAD_FD, SOURCE(twice, 1, &closed, 1));
    ANSWERS(VFERRY_ERR_BAD_FD, SOURCE(twice, 1, &pipes[1], 1));
    ANSWERS(VFERRY_ERR_BAD_FD, SOURCE(twice, 1, &file, 1));
    both[0] = both[1] = fds[0];
    ANSWERS(VFERRY_ERR_BAD_FD, SOURCE(twice, 1, both, 2));
    both[1] = dup(fds[0]);
    ANSWERS(VFERRY_ERR_BAD_FD, SOURCE(twice, 1, both, 2));
    CHECK(close(both[1]) == 0);
    for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) { /* Neither is connected. */
        both[0] = socket(AF_INET, type, 0);
        ANSWERS(VFERRY_ERR_BAD_FD, SOURCE(twice, 1, both, 1));
        CHECK(close(both[0]) == 0);
    }
    /* One device under two names. */
    MUST(vferry_device_embedded("net1", VFERRY_HOST_SOURCE, 0, file, &names[0]));
    MUST(vferry_device_embedded("net2", VFERRY_HOST_SOURCE, 0, file, &names[1]));
    ANSWERS(VFERRY_ERR_DEVICE_IN_USE, SOURCE(names, 2, fds, 1));
    vferry_device_free(&names[0]);
    vferry_device_free(&names[1]);
    MUST(vferry_options_set_chunk_bytes(options, 1));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, 1, fds, 1));
    MUST(vferry_options_set_chunk_bytes(options, 4 << 20));
    MUST(vferry_options_set_memory_bytes(options, 4096));
    ANSWERS(VFERRY_ERR_MEMORY_LIMIT, SOURCE(twice, 1, fds, 1));
    MUST(vferry_options_set_memory_bytes(options, 32 << 20));
    MUST(vferry_options_set_chunk_bytes(options, 4096));
    MUST(vferry_options_set_workers(options, 65));
    ANSWERS(VFERRY_ERR_RANGE, SOURCE(twice, 1, fds, 1));
    MUST(vferry_options_set_workers(options, 1));
    MUST(vferry_options_set_rate(options, 1000));
    ANSWERS(VFERRY_ERR_RATE_NEEDS_TCP, SOURCE(twice, 1, fds, 1));
#undef SOURCE

    CHECK(session == NULL && is_open(fds[0]) && is_open(fds[1]) && is_open(pipes[1]));
    MUST(vferry_device_set_weight(twice[0], 2)); /* In no session's hands. */
    vferry_device_free(&twice[0]);
    vferry_device_free(&same);
    vferry_device_free(&target);
    vferry_device_free(&null);
    vferry_options_free(&options);
    close(fds[0]), close(fds[1]), close(pipes[0]), close(pipes[1]), close(file);
}

/* Calls in the wrong order, after a cancel, with structs of the wrong size. */
static void a_session(void)
{
    static const uint8_t message[VFERRY_MESSAGE_BYTES_MAX + 1];
    vferry_options *options = test_options();
    vferry_device *device = NULL, *coming = NULL;
    vferry_session *session = NULL, *target = NULL;
    vferry_event event = {.size = sizeof event};
    vferry_report report = {.size = sizeof report};
    vferry_device_report one = {.size = sizeof one};
    vferry_device_stats device_stats = {.size = sizeof device_stats};
    vferry_stream_stats stream_stats = {.size = sizeof stream_stats};
    vferry_duration_stats durations = {.size = sizeof durations};
    struct { vferry_event event; char more[64]; } later; /* As a later header may have it. */
    struct pollfd readable = {.events = POLLIN};
    int fds[2], fd = -7, status;
    size_t count = 77;
    uint8_t byte;

    sockets(fds);
    MUST(vferry_device_embedded("net0", VFERRY_HOST_SOURCE, VFERRY_EMBEDDED_PRECOPY, -1, &device));
    MUST(vferry_device_embedded("net0", VFERRY_HOST_TARGET, 0, -1, &coming));
    MUST(vferry_session_source(options, &device, 1, &fds[0], 1, &session));
    ANSWERS(VFERRY_ERR_DEVICE_IN_USE, vferry_device_set_weight(device, 2));
    ANSWERS(VFERRY_ERR_DEVICE_IN_USE, vferry_session_source(NULL, &device, 1, &fds[1], 1, &target));
    vferry_device_free(&device); /* The session keeps it. */

    ANSWERS(VFERRY_ERR_NOT_ENDED, vferry_session_report(session, &report));
    ANSWERS(VFERRY_ERR_NOT_ENDED, vferry_session_device_report(session, 0, &one));
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_session_finish(session, 1, &report));
    ANSWERS(VFERRY_ERR_UNKNOWN_NUMBER, vferry_session_device_was_reset(session, 1));
    ANSWERS(VFERRY_ERR_TOO_LONG, vferry_session_send(session, message, sizeof message));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_send(session, NULL, 1));
    for (count = 0; count < VFERRY_MESSAGES_WAITING_MAX; count++) /* Nobody reads them. */
        ANSWERS(VFERRY_OK, vferry_session_send(session, message, 1));
    ANSWERS(VFERRY_ERR_FULL, vferry_session_send(session, message, 1));
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_session_finish(session, 1, &report)); /* It goes on. */
    count = 77;
    ANSWERS(VFERRY_ERR_NULL, vferry_session_poll(session, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_wait(session, 0, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_report(session, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_device_report(session, 0, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_finish(session, 0, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_event_fd(session, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_payload(session, &byte, 1, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_device_stats(session, 0, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_stream_stats(session, 0, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_step_stats(session, 1, NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_phase_stats(session, 1, NULL));
    ANSWERS(VFERRY_ERR_UNKNOWN_NUMBER, vferry_session_device_stats(session, 1, &device_stats));
    ANSWERS(VFERRY_ERR_UNKNOWN_NUMBER, vferry_session_stream_stats(session, 1, &stream_stats));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_step_stats(session, 0, &durations));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_step_stats(session, 8, &durations));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_phase_stats(session, 9, &durations));
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_session_wait_ready(session, 1, 1));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_wait_ready(session, 1, -2));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_wait(session, -2, &event));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_finish(session, INT64_MIN, &report));
    ANSWERS(VFERRY_ERR_RANGE, vferry_session_wait_closed(session, -2));
    ANSWERS(VFERRY_ERR_TIMEOUT, vferry_session_wait_closed(session, 1));

    /* Sizes. */
    event.size = 0;
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_poll(session, &event));
    event.size = offsetof(vferry_event, switchover_budget_ns) - 1; /* Less than the first version. */
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_wait(session, 0, &event));
    report.size = 8;
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_report(session, &report));
    one.size = device_stats.size = stream_stats.size = durations.size = 4;
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_device_report(session, 0, &one));
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_device_stats(session, 0, &device_stats));
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_stream_stats(session, 0, &stream_stats));
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_step_stats(session, 1, &durations));
    ANSWERS(VFERRY_ERR_STRUCT_SIZE, vferry_session_phase_stats(session, 1, &durations));

    /* The peer meets it, and leaves. */
    MUST(vferry_session_target(options, &coming, 1, &fds[1], 1, &target));
    vferry_options_free(&options); /* Sessions have copied them. */
    memset(&later, 0x55, sizeof later);
    later.event.size = sizeof later;
    MUST(vferry_session_wait(target, 60000, &later.event));
    CHECK(later.event.size == sizeof event && later.event.type == VFERRY_EVENT_CONNECTED);
    CHECK(later.more[0] == 0x55); /* What this library does not know is left as it was. */
    ANSWERS(VFERRY_ERR_WRONG_HOST, vferry_session_switchover(target));
    ANSWERS(VFERRY_ERR_WRONG_HOST, vferry_session_device_was_reset(target, 0));
    ANSWERS(VFERRY_ERR_WRONG_HOST, vferry_session_wait_ready(target, 1, 0));
    CHECK(!vferry_event_is_ready(&later.event, UINT64_MAX) && !vferry_event_is_ready(NULL, 1));
    MUST(vferry_session_cancel(target));
    MUST(vferry_session_cancel(target));
    readable.fd = -1;
    MUST(vferry_session_event_fd(target, &readable.fd));
    CHECK(poll(&readable, 1, 60000) == 1);
    event.size = sizeof event;
    MUST(vferry_session_poll(target, &event)); /* An event waits. */

    event.size = sizeof event;
    while ((status = vferry_session_wait(session, 60000, &event)) == VFERRY_OK)
        ;
    ANSWERS(VFERRY_ERR_ENDED, status);
    CHECK(event.type == VFERRY_EVENT_FINISHED && event.ending == VFERRY_ENDING_RETURNED);
    CHECK(event.text[0] && event.device == VFERRY_DEVICE_NONE);
    ANSWERS(VFERRY_ERR_ENDED, vferry_session_poll(session, &event));
    ANSWERS(VFERRY_ERR_ENDED, vferry_session_wait(session, VFERRY_NO_LIMIT, &event));
    ANSWERS(VFERRY_ERR_ENDED, vferry_session_wait_ready(session, 1, 1));
    ANSWERS(VFERRY_ERR_ENDED, vferry_session_switchover(session));
    ANSWERS(VFERRY_ERR_ENDED, vferry_session_send(session, message, 1));
    ANSWERS(VFERRY_ERR_ENDED, vferry_session_device_was_reset(session, 0));
    ANSWERS(VFERRY_OK, vferry_session_cancel(session));
    ANSWERS(VFERRY_OK, vferry_session_payload(session, NULL, 0, &count));
    CHECK(count == 0);
    report.size = sizeof report;
    ANSWERS(VFERRY_OK, vferry_session_finish(session, VFERRY_NO_LIMIT, &report));
    CHECK(report.ending == VFERRY_ENDING_RETURNED && report.text[0]);
    one.size = sizeof one;
    ANSWERS(VFERRY_ERR_UNKNOWN_NUMBER, vferry_session_device_report(session, 1, &one));
    ANSWERS(VFERRY_OK, vferry_session_device_report(session, 0, &one));
    CHECK(one.size == sizeof one);
    ANSWERS(VFERRY_OK, vferry_session_event_fd(session, &fd));
    ANSWERS(VFERRY_OK, vferry_session_finish(target, 60000, &report));
    CHECK(report.cause == VFERRY_CAUSE_CANCELLED);
    ANSWERS(VFERRY_OK, vferry_session_wait_closed(session, 60000));
    ANSWERS(VFERRY_OK, vferry_session_wait_closed(target, VFERRY_NO_LIMIT));
    CHECK(!is_open(fds[0]) && !is_open(fds[1])); /* They were the sessions'. */
    vferry_session_free(&session);
    vferry_session_free(&session);
    vferry_session_free(NULL);
    vferry_session_free(&target);

    /* An embedded device is for one session, even after it. */
    sockets(fds);
    ANSWERS(VFERRY_ERR_DEVICE_IN_USE, vferry_session_target(NULL, &coming, 1, fds, 1, &target));
    ANSWERS(VFERRY_ERR_DEVICE_IN_USE, vferry_device_set_weight(coming, 2));
    vferry_device_free(&coming);
    close(fds[0]), close(fds[1]);

    ANSWERS(VFERRY_ERR_NULL, vferry_session_poll(NULL, &event));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_wait(NULL, 0, &event));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_wait_ready(NULL, 0, 0));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_switchover(NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_cancel(NULL));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_wait_closed(NULL, 0));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_device_was_reset(NULL, 0));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_send(NULL, message, 1));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_event_fd(NULL, &fd));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_payload(NULL, &byte, 1, &count));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_report(NULL, &report));
    ANSWERS(VFERRY_ERR_NULL, vferry_session_finish(NULL, 0, &report));
}

/* A session that is freed while it runs is cancelled, and the fds that its VMM handed in are closed. */
static void freed_while_it_runs(void)
{
    vferry_options *options = test_options();
    vferry_device *device = NULL;
    vferry_session *session = NULL;
    int fds[2], data[2], before = open_fds();
    sockets(fds);
    CHECK(pipe2(data, O_CLOEXEC) == 0);
    MUST(vferry_device_embedded("net0", VFERRY_HOST_TARGET, 0, -1, &device));
    MUST(vferry_device_state_done(device, VFERRY_STATE_RESUMING, data[1], 0)); /* Before it is wanted. */
    CHECK(is_open(data[1]));
    MUST(vferry_session_target(options, &device, 1, fds, 1, &session));
    vferry_options_free(&options);
    vferry_session_free(&session);
    vferry_device_free(&device);
    CHECK(!is_open(data[1]));
    close(data[0]), close(fds[1]);
    wait_for_fds(before); /* A moment longer for the stream. */
}
int main(void)
{
    sessions_that_are_none();
    a_session();
    freed_while_it_runs();
    printf("%d misuses answered\n", checks);
    return 0;
}
