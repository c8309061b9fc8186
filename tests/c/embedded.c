/* Embedded devices answered by hand, and what events say, to the byte and to the number. */
#include "pair.h"

#include <netinet/in.h>

/* Nothing is written beyond a payload, and nothing at all where it does not fit. */
static void a_payload_stays_in_its_buffer(void)
{
    static uint8_t buffer[32], untouched[32];
    struct pair pair;
    vferry_event event;
    size_t count;

    start(&pair, VFERRY_EMBEDDED_PRECOPY | VFERRY_EMBEDDED_PRECOPY_INFO);
    memset(untouched, 0x55, sizeof untouched);
    event = event_of(&pair.target, VFERRY_EVENT_BEGIN);
    CHECK(event.payload_bytes == OPAQUE_BYTES && strcmp(event.text, "net0") == 0);
    CHECK(event.device == 0 && event.flags == VFERRY_EVENT_FLAG_PRECOPY);
    for (size_t capacity = 0; capacity < OPAQUE_BYTES; capacity++) {
        memcpy(buffer, untouched, sizeof buffer);
        count = 77;
        CHECK(vferry_session_payload(pair.target.session, capacity ? buffer : NULL, capacity, &count) ==
              VFERRY_ERR_BUFFER_TOO_SMALL);
        CHECK(count == 77 && memcmp(buffer, untouched, sizeof buffer) == 0);
    }
    for (size_t capacity = OPAQUE_BYTES; capacity <= sizeof buffer; capacity++) {
        memcpy(buffer, untouched, sizeof buffer);
        MUST(vferry_session_payload(pair.target.session, buffer, capacity, &count));
        CHECK(count == OPAQUE_BYTES && memcmp(buffer, opaque, count) == 0);
        CHECK(memcmp(buffer + count, untouched, sizeof buffer - count) == 0);
    }
    stop(&pair);

    start(&pair, 0);
    CHECK(event_of(&pair.target, VFERRY_EVENT_BEGIN).flags == 0);
    stop(&pair);
}

/* Of a stream of TCP it is found out how much it takes while there is nothing to send. */
static void what_the_path_takes_is_told(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    struct pair pair;
    vferry_event event;
    int fds[2], listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    CHECK(connect(fds[0], (struct sockaddr *)&address, length) == 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    close(listener);
    start_over(&pair, 0, VFERRY_ON_RESET_ABORT, test_options(), fds);
    event = event_of(&pair.source, VFERRY_EVENT_PATH);
    CHECK(event.path_bytes_per_s > 1000000 && event.latency_ns > 0 && event.latency_ns < 1000000000);
    CHECK(event.device == VFERRY_DEVICE_NONE && event.bytes == 0);
    stop(&pair);
}

/* A session that is cancelled while it wants something wants it no more, and takes no fd. */
static void a_cancel_withdraws_what_is_wanted(void)
{
    struct pollfd fd = {.events = POLLIN};
    struct pair pair;
    vferry_report report;
    uint32_t want;
    int late = data_fd(0);

    start(&pair, 0);
    wants(&pair.target, VFERRY_WANT_RESUMING);
    MUST(vferry_session_cancel(pair.target.session));
    report = finish(&pair.target);
    CHECK(report.cause == VFERRY_CAUSE_CANCELLED && report.observed == VFERRY_OBSERVED_EMBEDDER);
    /* The VMM may be in the middle of it. */
    CHECK(report.ending == VFERRY_ENDING_NOT_BLANK);
    MUST(vferry_device_wanted(pair.target.device, &want));
    MUST(vferry_device_event_fd(pair.target.device, &fd.fd));
    CHECK(want == VFERRY_WANT_NOTHING && poll(&fd, 1, 0) == 0);
    MUST(vferry_device_state_done(pair.target.device, VFERRY_STATE_RESUMING, late, 0));
    CHECK(!is_open(late)); /* It was taken over, and nobody needs it. */
    report = finish(&pair.source);
    CHECK(report.ending == VFERRY_ENDING_RETURNED && report.cause == VFERRY_CAUSE_PEER_ABORT);
    stop(&pair);
}

/* Fds that nobody will use are closed at once, or with the device. */
static void a_data_fd_that_is_past_is_closed(void)
{
    vferry_device *device = NULL;
    int first = data_fd(0), second = data_fd(0), third = data_fd(0);
    int real = data_fd(0); /* As the VFIO device fd, which is duplicated. */
    MUST(vferry_device_embedded("net0", VFERRY_HOST_SOURCE, VFERRY_EMBEDDED_PRECOPY, real, &device));
    CHECK(close(real) == 0);
    MUST(vferry_device_state_done(device, VFERRY_STATE_PRE_COPY, first, 0));
    CHECK(is_open(first));
    MUST(vferry_device_state_done(device, VFERRY_STATE_RUNNING, -1, 0)); /* It was reset. */
    CHECK(!is_open(first));
    MUST(vferry_device_state_done(device, VFERRY_STATE_STOP_COPY, second, 0));
    MUST(vferry_device_state_done(device, VFERRY_STATE_STOP_COPY, third, 0));
    CHECK(!is_open(second) && is_open(third));
    vferry_device_free(&device);
    CHECK(!is_open(third));
}

/* The kernel's errno arrives as it was, with the place where it was seen. */
static void a_failed_ioctl_is_told_with_its_errno(void)
{
    struct pair pair;
    vferry_event event;
    vferry_report report;
    start(&pair, 0);
    MUST(vferry_session_switchover(pair.source.session));
    wants(&pair.source, VFERRY_WANT_STOP_COPY);
    MUST(vferry_device_state_done(pair.source.device, VFERRY_STATE_STOP_COPY, -1, EIO));
    event = event_of(&pair.source, VFERRY_EVENT_COMPLETION);
    CHECK(event.os_error == EIO && event.observed == VFERRY_OBSERVED_SET_STATE);
    CHECK(event.device == 0 && event.epoch == 0 && event.epoch_ending == VFERRY_EPOCH_ABORTED);
    CHECK(event.ending == VFERRY_ENDING_NONE && event.bytes == 0 && event.text[0]);
    event = event_of(&pair.source, VFERRY_EVENT_FINISHED);
    CHECK(event.os_error == EIO && event.epoch_ending == VFERRY_EPOCH_NONE);
    report = finish(&pair.source);
    CHECK(report.os_error == EIO && report.cause == event.cause && report.device == 0);
    CHECK(report.observed == VFERRY_OBSERVED_SET_STATE && report.ending == event.ending);
    stop(&pair);
}

/* A reset that the VMM tells of right after an answer does not replace the answer. */
static void an_answer_is_not_lost_to_a_reset(void)
{
    struct pair pair;
    vferry_report report;
    start(&pair, 0);
    MUST(vferry_session_switchover(pair.source.session));
    wants(&pair.target, VFERRY_WANT_RESUMING);
    wants(&pair.source, VFERRY_WANT_STOP_COPY);
    MUST(vferry_device_state_done(pair.source.device, VFERRY_STATE_STOP_COPY, data_fd(10000), 0));
    MUST(vferry_device_state_done(pair.source.device, VFERRY_STATE_RUNNING, -1, 0));
    MUST(vferry_device_state_done(pair.target.device, VFERRY_STATE_RESUMING, data_fd(0), 0));
    report = finish(&pair.source);
    CHECK(report.ending == VFERRY_ENDING_RETURNED && report.cause == VFERRY_CAUSE_DEVICE_RESET);
    stop(&pair);
}

/* The same of GET_PRECOPY_INFO. And what an estimate says of a size that nobody told, or told. */
static void an_estimate_says_what_is_known(uint64_t length)
{
    struct pair pair;
    vferry_event event;
    start(&pair, VFERRY_EMBEDDED_PRECOPY | VFERRY_EMBEDDED_PRECOPY_INFO);
    if (length != VFERRY_VALUE_UNKNOWN)
        MUST(vferry_device_set_stop_copy_length(pair.source.device, length));
    wants(&pair.target, VFERRY_WANT_RESUMING);
    MUST(vferry_device_state_done(pair.target.device, VFERRY_STATE_RESUMING, data_fd(0), 0));
    wants(&pair.source, VFERRY_WANT_PRE_COPY);
    MUST(vferry_device_state_done(pair.source.device, VFERRY_STATE_PRE_COPY, data_fd(10000), 0));
    wants(&pair.source, VFERRY_WANT_PRECOPY_INFO);
    MUST(vferry_device_precopy_info_done(pair.source.device, 0, 4321, 0, 0));
    MUST(vferry_device_state_done(pair.source.device, VFERRY_STATE_PRE_COPY, -1, 0));
    do
        event = event_of(&pair.source, VFERRY_EVENT_ESTIMATE);
    while (event.pending_bytes != 4321);
    CHECK(event.stop_copy_bytes == length && event.device == VFERRY_DEVICE_NONE);
    CHECK((event.flags & ~(uint32_t)VFERRY_EVENT_FLAG_INITIAL_DATA_LOADED) == 0 && event.ratio > 0);
    CHECK(length != VFERRY_VALUE_UNKNOWN || event.downtime_ns == VFERRY_VALUE_UNKNOWN ||
          event.state_bytes_per_s > 0);
    stop(&pair);
}

static void the_size_is_unknown(void)
{
    an_estimate_says_what_is_known(VFERRY_VALUE_UNKNOWN);
}

static void the_size_is_known(void)
{
    an_estimate_says_what_is_known(12345);
}

/* Answers what a device in PRE_COPY has, until the source knows that its initial data is loaded or,
 * after a REINIT, that it is not. */
static void until(struct pair *pair, uint32_t flags, int loaded)
{
    vferry_event event;
    int tries = 0;
    do {
        CHECK(tries++ < 3000); /* Half a minute and more. */
        wants(&pair->source, VFERRY_WANT_PRECOPY_INFO);
        MUST(vferry_device_precopy_info_done(pair->source.device, flags, 0, flags, 0));
        event = event_of(&pair->source, VFERRY_EVENT_ESTIMATE);
    } while (!!(event.flags & VFERRY_EVENT_FLAG_INITIAL_DATA_LOADED) != loaded);
}

static void a_reinit_is_told(void)
{
    struct pair pair;
    uint32_t flags = VFERRY_EMBEDDED_PRECOPY | VFERRY_EMBEDDED_PRECOPY_INFO | VFERRY_EMBEDDED_PRECOPY_INFO_V2;
    vferry_options *options = test_options();
    MUST(vferry_options_set_precopy_poll_ms(options, 10));
    start_with(&pair, flags, VFERRY_ON_RESET_ABORT, options);
    wants(&pair.target, VFERRY_WANT_RESUMING);
    MUST(vferry_device_state_done(pair.target.device, VFERRY_STATE_RESUMING, data_fd(0), 0));
    wants(&pair.source, VFERRY_WANT_PRE_COPY);
    MUST(vferry_device_state_done(pair.source.device, VFERRY_STATE_PRE_COPY, data_fd(10000), 0));
    until(&pair, 0, 1);
    until(&pair, VFERRY_PRECOPY_INFO_REINIT, 0);
    stop(&pair);
}

int main(void)
{
    static void (*const tests[])(void) = {
        a_payload_stays_in_its_buffer, what_the_path_takes_is_told, a_cancel_withdraws_what_is_wanted,
        a_data_fd_that_is_past_is_closed,      a_failed_ioctl_is_told_with_its_errno,
        an_answer_is_not_lost_to_a_reset,      the_size_is_unknown,
        the_size_is_known,                     a_reinit_is_told,
    };
    return run_tests(tests, sizeof tests / sizeof *tests);
}
