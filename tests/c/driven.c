/* Devices that the engine drives, through the header: drivers that answer late, or never, or that
 * are interrupted for ever; and a data fd whose other end has gone. */
#include "driver.h"

static void open_driver(int state, int holds, int data_fd)
{
    if (driver.device_fd < 0) {
        driver.device_fd = memfd_create("device", MFD_CLOEXEC);
        CHECK(driver.device_fd >= 0);
    }
    driver_is(state, holds, data_fd);
}

static void close_driver(void)
{
    close(driver.device_fd);
    driver.device_fd = -1;
}

static vferry_options *quick(void)
{
    vferry_options *options = test_options();
    MUST(vferry_options_set_cancel_bound_ms(options, 200));
    return options;
}

/* One host's device is driven, the other's embedded. Takes the options. */
static void start_driven(struct pair *pair, uint32_t driven, vferry_options *options)
{
    int fds[2];
    struct host *theirs = driven == VFERRY_HOST_SOURCE ? &pair->target : &pair->source;
    struct host *ours = driven == VFERRY_HOST_SOURCE ? &pair->source : &pair->target;
    uint32_t other = driven == VFERRY_HOST_SOURCE ? VFERRY_HOST_TARGET : VFERRY_HOST_SOURCE;
    memset(pair, 0, sizeof *pair);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    MUST(vferry_device_from_fd("net0", driver.device_fd, &ours->device));
    MUST(vferry_device_embedded("net0", other, 0, -1, &theirs->device));
    MUST(vferry_session_source(options, &pair->source.device, 1, &fds[0], 1, &pair->source.session));
    MUST(vferry_session_target(options, &pair->target.device, 1, &fds[1], 1, &pair->target.session));
    vferry_options_free(&options);
}

static vferry_device_report device_of(struct host *host)
{
    vferry_device_report report = {.size = sizeof report};
    MUST(vferry_session_device_report(host->session, 0, &report));
    return report;
}

static void embedded_answers(struct host *host, uint32_t want, int fd)
{
    wants(host, want);
    MUST(vferry_device_state_done(host->device, (int)want, fd, 0));
}

/* The session has ended, its device is late: it comes back, is told of once, and then nothing is. */
static void comes_back(struct host *host)
{
    vferry_event event = {.size = sizeof event};
    CHECK(vferry_session_poll(host->session, &event) == VFERRY_ERR_ENDED);
    CHECK(vferry_session_wait(host->session, 0, &event) == VFERRY_ERR_ENDED);
    driver_answers();
    event = event_of(host, VFERRY_EVENT_DEVICE_CAME_BACK);
    CHECK(event.device == 0 && event.state == VFERRY_STATE_RUNNING);
    CHECK(event.flags == VFERRY_EVENT_FLAG_HOME);
    CHECK(vferry_session_wait(host->session, 60000, &event) == VFERRY_ERR_ENDED);
    CHECK(driver_state() == VFERRY_STATE_RUNNING);
}

static void a_late_device_of_the_source_comes_back(void)
{
    struct pair pair;
    vferry_report report;
    open_driver(VFERRY_STATE_RUNNING, VFERRY_STATE_STOP_COPY, data_fd(10000));
    start_driven(&pair, VFERRY_HOST_SOURCE, quick());
    embedded_answers(&pair.target, VFERRY_WANT_RESUMING, data_fd(0));
    MUST(vferry_session_switchover(pair.source.session));
    driver_holds();
    MUST(vferry_session_cancel(pair.source.session));
    report = finish(&pair.source);
    CHECK(report.ending == VFERRY_ENDING_NOT_RETURNED && report.cause == VFERRY_CAUSE_CANCELLED);
    CHECK(!device_of(&pair.source).home);
    CHECK(device_of(&pair.source).state == VFERRY_STATE_UNKNOWN);
    comes_back(&pair.source);
    stop(&pair);
    close_driver();
}

static void a_late_device_of_the_target_is_made_blank(void)
{
    struct pair pair;
    vferry_report report;
    open_driver(VFERRY_STATE_RUNNING, VFERRY_STATE_RESUMING, data_fd(0));
    start_driven(&pair, VFERRY_HOST_TARGET, quick());
    driver_holds();
    MUST(vferry_session_cancel(pair.target.session));
    report = finish(&pair.target);
    CHECK(report.ending == VFERRY_ENDING_NOT_BLANK && !device_of(&pair.target).home);
    comes_back(&pair.target);
    CHECK(driver.resets > 0);
    stop(&pair);
    close_driver();
}

/* A free waits for no driver, which is brought back all the same. */
static void who_frees_the_session_hears_nothing_and_the_device_comes_back(void)
{
    struct pair pair;
    open_driver(VFERRY_STATE_RUNNING, VFERRY_STATE_STOP_COPY, data_fd(10000));
    start_driven(&pair, VFERRY_HOST_SOURCE, quick());
    embedded_answers(&pair.target, VFERRY_WANT_RESUMING, data_fd(0));
    MUST(vferry_session_switchover(pair.source.session));
    driver_holds();
    stop(&pair);
    CHECK(driver_state() == VFERRY_STATE_RUNNING); /* as far as the driver has said */
    driver_answers();
    for (int i = 0; i < 60000 && driver.data_fd >= 0; i++)
        poll(NULL, 0, 1);
    for (int i = 0; i < 60000 && driver_state() != VFERRY_STATE_RUNNING; i++)
        poll(NULL, 0, 1);
    CHECK(driver.data_fd < 0 && driver_state() == VFERRY_STATE_RUNNING);
    close_driver();
}

/* A driver whose GET_STATE is interrupted again and again is one that fails. */
static void a_driver_that_is_interrupted_for_ever_has_failed(void)
{
    vferry_options *options = quick();
    vferry_session *session = NULL;
    vferry_device *device;
    int fds[2];
    open_driver(VFERRY_STATE_RUNNING, -1, -1);
    driver.interrupts = 1;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    MUST(vferry_device_from_fd("net0", driver.device_fd, &device));
    CHECK(vferry_session_source(options, &device, 1, fds, 1, &session) != VFERRY_OK);
    CHECK(session == NULL && vferry_last_errno() == EINTR && driver.gets > 1);
    vferry_device_free(&device);
    vferry_options_free(&options);
    close(fds[0]);
    close(fds[1]);
    close_driver();
}

/* The driver's reader has gone: EPIPE is an errno, and kills no VMM by SIGPIPE. */
static void a_closed_pipe_is_an_errno(void)
{
    for (int driven = 0; driven < 2; driven++) {
        struct pair pair;
        vferry_report report;
        int ends[2];
        CHECK(pipe2(ends, O_CLOEXEC) == 0);
        close(ends[0]);
        if (driven) {
            open_driver(VFERRY_STATE_RUNNING, -1, ends[1]);
            start_driven(&pair, VFERRY_HOST_TARGET, test_options());
        } else {
            start(&pair, 0);
            embedded_answers(&pair.target, VFERRY_WANT_RESUMING, ends[1]);
        }
        MUST(vferry_session_switchover(pair.source.session));
        embedded_answers(&pair.source, VFERRY_WANT_STOP_COPY, data_fd(10000));
        report = finish(&pair.target);
        CHECK(report.cause == VFERRY_CAUSE_DEVICE_FAILURE && report.observed == VFERRY_OBSERVED_WRITE);
        CHECK(report.os_error == EPIPE && report.device == 0);
        CHECK(report.ending == (uint32_t)(driven ? VFERRY_ENDING_BLANK : VFERRY_ENDING_NOT_BLANK));
        report = finish(&pair.source);
        CHECK(report.ending == VFERRY_ENDING_RETURNED && report.cause == VFERRY_CAUSE_PEER_ABORT);
        stop(&pair);
        if (driven)
            close_driver();
    }
}

int main(void)
{
    static void (*const tests[])(void) = {
        a_late_device_of_the_source_comes_back,
        a_late_device_of_the_target_is_made_blank,
        who_frees_the_session_hears_nothing_and_the_device_comes_back,
        a_driver_that_is_interrupted_for_ever_has_failed,
        a_closed_pipe_is_an_errno,
    };
    return run_tests(tests, sizeof tests / sizeof *tests);
}
