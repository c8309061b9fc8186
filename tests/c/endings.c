/* How sessions of embedded devices end, and what is true then: resets that the VMM tells of, limits
 * of time, cancels and frees in every stage. */
#include "pair.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#define PRECOPY (VFERRY_EMBEDDED_PRECOPY | VFERRY_EMBEDDED_PRECOPY_INFO)

static vferry_device_report device_of(struct host *host)
{
    vferry_device_report report = {.size = sizeof report};
    MUST(vferry_session_device_report(host->session, 0, &report));
    return report;
}

static void moved(struct host *host, int state, int fd)
{
    MUST(vferry_device_state_done(host->device, state, fd, 0));
}

static void answers(struct host *host, uint32_t want, int fd)
{
    wants(host, want);
    moved(host, (int)want, fd);
}

/* Both devices save and load in PRE_COPY. */
static void in_pre_copy(struct pair *pair, uint32_t on_reset, vferry_options *options)
{
    start_with(pair, PRECOPY, on_reset, options);
    answers(&pair->target, VFERRY_WANT_RESUMING, data_fd(0));
    answers(&pair->source, VFERRY_WANT_PRE_COPY, data_fd(10000));
}

/* --- resets ----------------------------------------------------------------------------------- */

/* RUNNING out of a saving state is a reset, whatever is wanted at that moment. */
static void a_reset_acts_at_once(void)
{
    struct pair pair;
    vferry_device_report device;
    vferry_report report;
    vferry_event event;
    in_pre_copy(&pair, VFERRY_ON_RESET_ABORT, test_options());
    moved(&pair.source, VFERRY_STATE_RUNNING, -1);
    report = finish(&pair.source);
    CHECK(report.ending == VFERRY_ENDING_RETURNED && report.cause == VFERRY_CAUSE_DEVICE_RESET);
    CHECK(report.observed == VFERRY_OBSERVED_EMBEDDER && report.device == 0);
    device = device_of(&pair.source);
    CHECK(device.state == VFERRY_STATE_RUNNING && device.home && !device.was_reset);
    stop(&pair);

    in_pre_copy(&pair, VFERRY_ON_RESET_RESTART, test_options());
    wants(&pair.source, VFERRY_WANT_PRECOPY_INFO);
    moved(&pair.source, VFERRY_STATE_RUNNING, -1); /* It has nothing to say to PRECOPY_INFO any more. */
    event = event_of(&pair.source, VFERRY_EVENT_COMPLETION);
    CHECK(event.epoch_ending == VFERRY_EPOCH_RESTARTED && event.state != VFERRY_STATE_PRE_COPY);
    wants(&pair.source, VFERRY_WANT_PRE_COPY);
    stop(&pair);
}

/* ERROR is not a reset that a restart answers. */
static void an_error_ends_it(void)
{
    struct pair pair;
    vferry_report report;
    in_pre_copy(&pair, VFERRY_ON_RESET_RESTART, test_options());
    moved(&pair.source, VFERRY_STATE_ERROR, -1);
    report = finish(&pair.source);
    CHECK(report.ending == VFERRY_ENDING_RETURNED && report.cause == VFERRY_CAUSE_DEVICE_ERROR);
    CHECK(device_of(&pair.source).state == VFERRY_STATE_ERROR);
    stop(&pair);
}

static void by_state(struct pair *pair)
{
    moved(&pair->source, VFERRY_STATE_RUNNING, -1);
}

static void by_name(struct pair *pair)
{
    MUST(vferry_session_device_was_reset(pair->source.session, 0));
}

static void by_errno(struct pair *pair)
{
    MUST(vferry_device_precopy_info_done(pair->source.device, 0, 0, 0, EINVAL));
}

/* One reset, told in every way, in every order, is one restart: there is only one to be had. */
static void a_reset_counts_once(void)
{
    static void (*const ways[])(struct pair *) = {by_state, by_name, by_errno};
    for (size_t order = 0; order < 27; order++) {
        struct pair pair;
        vferry_report report;
        in_pre_copy(&pair, VFERRY_ON_RESET_RESTART, test_options());
        wants(&pair.source, VFERRY_WANT_PRECOPY_INFO);
        for (size_t i = 0, rest = order; i < 3; i++, rest /= 3)
            ways[rest % 3](&pair);
        answers(&pair.source, VFERRY_WANT_PRE_COPY, data_fd(10000));
        MUST(vferry_session_switchover(pair.source.session));
        wants(&pair.target, VFERRY_WANT_RESET);
        MUST(vferry_device_reset_done(pair.target.device, 0));
        answers(&pair.target, VFERRY_WANT_RESUMING, data_fd(0));
        for (uint32_t want = 0; want != VFERRY_WANT_STOP_COPY;) {
            struct pollfd fd = {.events = POLLIN};
            MUST(vferry_device_event_fd(pair.source.device, &fd.fd));
            CHECK(poll(&fd, 1, 60000) == 1);
            MUST(vferry_device_wanted(pair.source.device, &want));
            if (want == VFERRY_WANT_PRECOPY_INFO)
                MUST(vferry_device_precopy_info_done(pair.source.device, 0, 0, 0, 0));
        }
        moved(&pair.source, VFERRY_STATE_STOP_COPY, -1);
        answers(&pair.target, VFERRY_WANT_STOP, -1);
        answers(&pair.target, VFERRY_WANT_RUNNING, -1);
        report = finish(&pair.source);
        CHECK(report.ending == VFERRY_ENDING_HANDED_OVER && device_of(&pair.source).epoch == 1);
        report = finish(&pair.target);
        CHECK(report.ending == VFERRY_ENDING_RUNNING);
        CHECK(device_of(&pair.target).bytes == 10000);
        stop(&pair);
    }
}

/* Without a device fd, and without another word: EINVAL is what a device says that was reset. */
static void an_errno_tells_of_a_reset(void)
{
    struct pair pair;
    vferry_event event;
    in_pre_copy(&pair, VFERRY_ON_RESET_RESTART, test_options());
    wants(&pair.source, VFERRY_WANT_PRECOPY_INFO);
    by_errno(&pair);
    event = event_of(&pair.source, VFERRY_EVENT_COMPLETION);
    CHECK(event.epoch_ending == VFERRY_EPOCH_RESTARTED && event.cause == VFERRY_CAUSE_DEVICE_RESET);
    CHECK(event.observed == VFERRY_OBSERVED_PRECOPY_INFO && event.os_error == EINVAL);
    wants(&pair.source, VFERRY_WANT_PRE_COPY);
    stop(&pair);
}

/* Unless the VMM has stopped the device, and says so after the errno or before. */
static void a_device_that_was_stopped_was_not_reset(void)
{
    for (int first = 0; first < 2; first++) {
        struct pair pair;
        vferry_report report;
        in_pre_copy(&pair, VFERRY_ON_RESET_ABORT, test_options());
        wants(&pair.source, VFERRY_WANT_PRECOPY_INFO);
        if (first)
            by_errno(&pair);
        moved(&pair.source, VFERRY_STATE_STOP_COPY, -1);
        if (!first)
            by_errno(&pair);
        MUST(vferry_session_switchover(pair.source.session));
        answers(&pair.target, VFERRY_WANT_STOP, -1);
        answers(&pair.target, VFERRY_WANT_RUNNING, -1);
        report = finish(&pair.source);
        CHECK(report.ending == VFERRY_ENDING_HANDED_OVER);
        CHECK(finish(&pair.target).ending == VFERRY_ENDING_RUNNING);
        stop(&pair);
    }
}

static void a_reset_of_the_target_ends_it(void)
{
    for (int tells_of_reset = 0; tells_of_reset < 2; tells_of_reset++) {
        struct pair pair;
        vferry_report report;
        in_pre_copy(&pair, VFERRY_ON_RESET_RESTART, test_options());
        if (tells_of_reset)
            MUST(vferry_device_reset_done(pair.target.device, 0));
        else
            moved(&pair.target, VFERRY_STATE_RUNNING, -1);
        report = finish(&pair.target);
        CHECK(report.cause == VFERRY_CAUSE_DEVICE_RESET && report.observed == VFERRY_OBSERVED_EMBEDDER);
        /* RUNNING alone does not say that nothing of the state is left. */
        CHECK(report.ending ==
              (uint32_t)(tells_of_reset ? VFERRY_ENDING_BLANK : VFERRY_ENDING_NOT_BLANK));
        CHECK(device_of(&pair.target).home == (uint32_t)tells_of_reset);
        report = finish(&pair.source);
        CHECK(report.ending == VFERRY_ENDING_RETURNED && report.cause == VFERRY_CAUSE_PEER_ABORT);
        stop(&pair);
    }
}

/* --- REINIT ------------------------------------------------------------------------------------- */

struct precopy_info {
    uint32_t argsz, flags;
    uint64_t initial_bytes, dirty_bytes;
};

static atomic_int reinit;

/* VFIO_MIG_GET_PRECOPY_INFO, where the engine makes it. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    struct precopy_info *info;
    va_start(list, request);
    info = va_arg(list, void *);
    va_end(list);
    if (request != 0x3b79)
        return (int)syscall(SYS_ioctl, fd, request, info);
    info->flags = (uint32_t)reinit;
    info->initial_bytes = (uint64_t)reinit;
    info->dirty_bytes = 0;
    return 0;
}

/* Only a VMM that has opted in knows that the kernel says it, and not an echo. */
static void reinit_is_heeded_where_it_means_something(void)
{
    for (uint32_t v2 = 0; v2 <= VFERRY_EMBEDDED_PRECOPY_INFO_V2; v2 += VFERRY_EMBEDDED_PRECOPY_INFO_V2) {
        struct pair pair;
        vferry_event event;
        reinit = 0;
        start_with(&pair, VFERRY_EMBEDDED_PRECOPY | v2, VFERRY_ON_RESET_ABORT, test_options());
        answers(&pair.target, VFERRY_WANT_RESUMING, data_fd(0));
        answers(&pair.source, VFERRY_WANT_PRE_COPY, data_fd(10000));
        do
            event = event_of(&pair.source, VFERRY_EVENT_ESTIMATE);
        while (!(event.flags & VFERRY_EVENT_FLAG_INITIAL_DATA_LOADED));
        reinit = 1;
        if (v2) {
            do
                event = event_of(&pair.source, VFERRY_EVENT_ESTIMATE);
            while (event.flags & VFERRY_EVENT_FLAG_INITIAL_DATA_LOADED);
        } else {
            for (int i = 0; i < 10; i++) {
                event = event_of(&pair.source, VFERRY_EVENT_ESTIMATE);
                CHECK(event.flags & VFERRY_EVENT_FLAG_INITIAL_DATA_LOADED);
            }
        }
        stop(&pair);
    }
}

/* --- what is true at the end -------------------------------------------------------------------- */

static void a_state_is_the_vmms_last_word(void)
{
    struct pair pair;
    vferry_device_report device;
    vferry_event event = {.size = sizeof event};
    int late = data_fd(0);
    start(&pair, PRECOPY);
    wants(&pair.source, VFERRY_WANT_PRE_COPY);
    MUST(vferry_session_cancel(pair.source.session));
    CHECK(finish(&pair.source).ending == VFERRY_ENDING_RETURNED);
    device = device_of(&pair.source);
    CHECK(device.state == VFERRY_STATE_UNKNOWN && device.home);
    stop(&pair);

    in_pre_copy(&pair, VFERRY_ON_RESET_ABORT, test_options());
    MUST(vferry_session_cancel(pair.source.session));
    CHECK(finish(&pair.source).ending == VFERRY_ENDING_RETURNED);
    device = device_of(&pair.source);
    CHECK(device.state == VFERRY_STATE_PRE_COPY && device.home && !device.stuck);
    /* It is the VMM's, whose words are still taken. */
    moved(&pair.source, VFERRY_STATE_STOP_COPY, late);
    moved(&pair.source, VFERRY_STATE_RUNNING, -1);
    CHECK(!is_open(late));
    CHECK(vferry_session_poll(pair.source.session, &event) == VFERRY_ERR_ENDED);
    stop(&pair);
}

/* --- limits --------------------------------------------------------------------------------------- */

static void is_over(const vferry_report *report, const char *option)
{
    if (report->cause != VFERRY_CAUSE_TIME_LIMIT || report->observed != VFERRY_OBSERVED_CLOCK ||
        !strstr(report->text, option)) {
        fprintf(stderr, "%s: %s, %s: %s\n", option, vferry_cause_text(report->cause),
                vferry_observed_text(report->observed), report->text);
        fail("the limit is the cause", __FILE__, __LINE__);
    }
}

static void a_handshake_has_a_limit(void)
{
    vferry_options *options = test_options();
    struct host host = {NULL, NULL};
    vferry_report report;
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    MUST(vferry_options_set_handshake_limit_ms(options, 50));
    MUST(vferry_device_embedded("net0", VFERRY_HOST_SOURCE, 0, -1, &host.device));
    MUST(vferry_session_source(options, &host.device, 1, fds, 1, &host.session));
    report = finish(&host);
    is_over(&report, "handshake_limit");
    CHECK(report.ending == VFERRY_ENDING_RETURNED && device_of(&host).home);
    vferry_session_free(&host.session);
    vferry_device_free(&host.device);
    vferry_options_free(&options);
    close(fds[1]);
}

/* A VMM that does not answer. */
static void a_stall_has_a_limit(void)
{
    vferry_options *options = test_options();
    struct pair pair;
    vferry_report report;
    MUST(vferry_options_set_stall_limit_ms(options, 100));
    start_with(&pair, PRECOPY, VFERRY_ON_RESET_ABORT, options);
    wants(&pair.source, VFERRY_WANT_PRE_COPY);
    wants(&pair.target, VFERRY_WANT_RESUMING);
    report = finish(&pair.source);
    CHECK(report.ending == VFERRY_ENDING_RETURNED);
    if (report.cause != VFERRY_CAUSE_PEER_ABORT)
        is_over(&report, "stall_limit");
    report = finish(&pair.target);
    CHECK(report.ending == VFERRY_ENDING_NOT_BLANK);
    if (report.cause != VFERRY_CAUSE_PEER_ABORT)
        is_over(&report, "stall_limit");
    stop(&pair);
}

static void a_switchover_has_a_budget(void)
{
    static const uint32_t stalls[] = {VFERRY_WANT_RESUMING, VFERRY_WANT_STOP};
    for (size_t i = 0; i < sizeof stalls / sizeof *stalls; i++) {
        vferry_options *options = test_options();
        struct pair pair;
        vferry_report report;
        MUST(vferry_options_set_switchover_budget_ms(options, 100));
        start_with(&pair, 0, VFERRY_ON_RESET_ABORT, options);
        MUST(vferry_session_switchover(pair.source.session));
        answers(&pair.source, VFERRY_WANT_STOP_COPY, data_fd(10000));
        if (stalls[i] == VFERRY_WANT_STOP)
            answers(&pair.target, VFERRY_WANT_RESUMING, data_fd(0));
        wants(&pair.target, stalls[i]);
        report = finish(&pair.source);
        is_over(&report, "switchover_budget");
        CHECK(report.ending == VFERRY_ENDING_RETURNED);
        CHECK(device_of(&pair.source).state == VFERRY_STATE_STOP_COPY);
        report = finish(&pair.target);
        CHECK(report.ending == VFERRY_ENDING_NOT_BLANK && report.cause == VFERRY_CAUSE_PEER_ABORT);
        stop(&pair);
    }
}

/* The target's VMM does not start the device: nobody knows at the source. */
static void a_confirmation_has_a_limit(void)
{
    vferry_options *options = test_options();
    struct pair pair;
    vferry_report report;
    MUST(vferry_options_set_confirm_limit_ms(options, 100));
    MUST(vferry_options_set_cancel_bound_ms(options, 200));
    start_with(&pair, 0, VFERRY_ON_RESET_ABORT, options);
    MUST(vferry_session_switchover(pair.source.session));
    answers(&pair.source, VFERRY_WANT_STOP_COPY, data_fd(10000));
    answers(&pair.target, VFERRY_WANT_RESUMING, data_fd(0));
    answers(&pair.target, VFERRY_WANT_STOP, -1);
    wants(&pair.target, VFERRY_WANT_RUNNING);
    report = finish(&pair.source);
    is_over(&report, "confirm_limit");
    CHECK(report.ending == VFERRY_ENDING_UNCONFIRMED);
    /* A cancel does not undo the handover, and bounds it. */
    MUST(vferry_session_cancel(pair.target.session));
    report = finish(&pair.target);
    CHECK(report.ending == VFERRY_ENDING_NOT_BLANK && report.cause == VFERRY_CAUSE_CANCELLED);
    stop(&pair);
}

/* --- cancels and frees ---------------------------------------------------------------------------- */

/* A stage is how many answers were given; the next question is left open. */
#define STAGES 5
static void goes_to(struct pair *pair, size_t stage)
{
    vferry_options *options = test_options();
    MUST(vferry_options_set_cancel_bound_ms(options, 200));
    MUST(vferry_options_set_stall_limit_ms(options, VFERRY_NO_LIMIT));
    MUST(vferry_options_set_confirm_limit_ms(options, VFERRY_NO_LIMIT));
    start_with(pair, 0, VFERRY_ON_RESET_ABORT, options);
    if (stage >= 1)
        answers(&pair->target, VFERRY_WANT_RESUMING, data_fd(0));
    if (stage >= 2) {
        MUST(vferry_session_switchover(pair->source.session));
        wants(&pair->source, VFERRY_WANT_STOP_COPY);
    }
    if (stage >= 3) {
        moved(&pair->source, VFERRY_STATE_STOP_COPY, data_fd(10000));
        wants(&pair->target, VFERRY_WANT_STOP);
    }
    if (stage >= 4) {
        moved(&pair->target, VFERRY_STATE_STOP, -1);
        wants(&pair->target, VFERRY_WANT_RUNNING);
    }
}

static void a_cancel_is_bounded_in_every_stage(void)
{
    for (size_t stage = 0; stage < STAGES; stage++)
        for (int target = 0; target < 2; target++) {
            int handed_over = stage == STAGES - 1;
            struct pair pair;
            vferry_report report;
            goes_to(&pair, stage);
            MUST(vferry_session_cancel(target ? pair.target.session : pair.source.session));
            report = finish(target ? &pair.target : &pair.source);
            CHECK(report.cause == VFERRY_CAUSE_CANCELLED);
            if (!target)
                CHECK(report.ending ==
                      (uint32_t)(handed_over ? VFERRY_ENDING_UNCONFIRMED : VFERRY_ENDING_RETURNED));
            else
                CHECK(report.ending == VFERRY_ENDING_NOT_BLANK || stage == 0);
            stop(&pair);
        }
}

static void a_free_is_bounded_in_every_stage(void)
{
    for (size_t stage = 0; stage < STAGES; stage++)
        for (int target = 0; target < 2; target++) {
            struct pair pair;
            goes_to(&pair, stage);
            vferry_session_free(target ? &pair.target.session : &pair.source.session);
            stop(&pair);
        }
}

int main(void)
{
    static void (*const tests[])(void) = {
        a_reset_acts_at_once,
        an_error_ends_it,
        a_reset_counts_once,
        an_errno_tells_of_a_reset,
        a_device_that_was_stopped_was_not_reset,
        a_reset_of_the_target_ends_it,
        reinit_is_heeded_where_it_means_something,
        a_state_is_the_vmms_last_word,
        a_handshake_has_a_limit,
        a_stall_has_a_limit,
        a_switchover_has_a_budget,
        a_confirmation_has_a_limit,
        a_cancel_is_bounded_in_every_stage,
        a_free_is_bounded_in_every_stage,
    };
    return run_tests(tests, sizeof tests / sizeof *tests);
}
