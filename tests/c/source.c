/* A VMM that migrates devices away: source ADDRESS STREAMS DEVICES RESETS */
#include "drive.h"

#include <stdlib.h>
#include <unistd.h>

/* The figures of a session that has ended add up. */
static void check_figures(vferry_session *session, const vferry_report *report)
{
    uint64_t state_bytes = 0, sent_bytes = 0;
    vferry_duration_stats durations = {.size = sizeof durations};
    for (uint32_t i = 0; i < report->devices; i++) {
        vferry_device_stats stats = {.size = sizeof stats};
        MUST(vferry_session_device_stats(session, i, &stats));
        CHECK(stats.device == i && stats.state_bytes > 0 && stats.device_ns > 0);
        state_bytes += stats.state_bytes;
    }
    for (uint32_t i = 0; i < report->streams; i++) {
        vferry_stream_stats stats = {.size = sizeof stats};
        MUST(vferry_session_stream_stats(session, i, &stats));
        CHECK(stats.sent_frames > 0 && stats.received_frames > 0);
        sent_bytes += stats.sent_bytes;
    }
    CHECK(state_bytes == report->state_bytes && sent_bytes == report->wire_bytes);
    MUST(vferry_session_step_stats(session, VFERRY_STEP_READ, &durations));
    CHECK(durations.count > 0 && durations.min_ns <= durations.p50_ns);
    CHECK(durations.p50_ns <= durations.p99_ns && durations.p99_ns <= durations.max_ns);
    MUST(vferry_session_phase_stats(session, VFERRY_PHASE_STOP_COPY, &durations));
    CHECK(durations.count == report->devices);
    CHECK(report->started_ns < report->connected_ns && report->connected_ns < report->finished_ns);
    CHECK(report->stop_called_ns > report->connected_ns);
}

/* What the next migration's forecast would go by. */
static void check_latencies(vferry_session *session)
{
    vferry_device_report report = {.size = sizeof report};
    MUST(vferry_session_device_report(session, 0, &report));
    CHECK(report.stop_ns != VFERRY_VALUE_UNKNOWN && report.stop_ns > 0);
    CHECK(report.load_ns != VFERRY_VALUE_UNKNOWN);
    CHECK(report.run_ns != VFERRY_VALUE_UNKNOWN && report.run_ns > 0);
}

int main(int argc, char **argv)
{
    static struct double_device devices[DEVICES_MAX];
    vferry_device *handles[DEVICES_MAX];
    vferry_options *options = test_options();
    vferry_engine *engine = NULL;
    struct drive drive = {.devices = devices, .stop_when_ready = 1, .greeting = "hello"};
    vferry_report report = {.size = sizeof report};
    vferry_log_line line = {.size = sizeof line};
    int fds[VFERRY_STREAMS_MAX];
    size_t streams;

    if (argc != 5)
        return 2;
    streams = (size_t)atoi(argv[2]);
    drive.count = (size_t)atoi(argv[3]);
    CHECK(streams <= VFERRY_STREAMS_MAX && drive.count <= DEVICES_MAX);
    MUST(vferry_log_start(VFERRY_LOG_INFO, 100));

    for (size_t i = 0; i < drive.count; i++) {
        char name[32];
        struct double_plan plan = {3000000, 70001, 2000000 + i, atoi(argv[4])};
        snprintf(name, sizeof name, "net%zu", i);
        double_source(&devices[i], name, plan);
        handles[i] = devices[i].ferry;
        MUST(vferry_device_set_on_reset(handles[i], VFERRY_ON_RESET_RESTART, 3, VFERRY_ON_RESET_ABORT));
        MUST(vferry_device_set_weight(handles[i], (uint32_t)i + 1));
        MUST(vferry_device_set_latencies(handles[i], VFERRY_VALUE_UNKNOWN, 1000000, 0));
        MUST(vferry_device_set_opaque(handles[i], (const uint8_t *)"config space", 12));
    }
    MUST(vferry_connect(argv[1], 60000, fds, streams));
    MUST(vferry_options_set_rate(options, 4000000000u));
    /* What several sessions would share; its handle may go before the session does. */
    MUST(vferry_engine_new(&engine, options, 48 << 20));
    MUST(vferry_options_set_engine(options, engine));
    MUST(vferry_session_source(options, handles, drive.count, fds, streams, &drive.session));
    CHECK(vferry_engine_memory_left(engine) < 48 << 20);
    vferry_options_free(&options);
    vferry_engine_free(&engine);
    CHECK(engine == NULL);

    drive_to_end(&drive);
    MUST(vferry_session_report(drive.session, &report));
    printf("%s on %s\n", vferry_ending_text(report.ending), report.fallback);
    CHECK(report.ending == VFERRY_ENDING_HANDED_OVER && drive.finished.ending == report.ending);
    CHECK(drive.restarts == atoi(argv[4]) * (int)drive.count && drive.estimates > 0);
    CHECK(report.devices == drive.count && report.streams == streams);
    check_figures(drive.session, &report);
    check_latencies(drive.session);
    drive_contents(&drive);
    MUST(vferry_log_next(&line)); /* At least one completion. */
    CHECK(line.level <= VFERRY_LOG_INFO && line.time_ns > 0 && line.text[0]);

    MUST(vferry_session_wait_closed(drive.session, 60000));
    vferry_session_free(&drive.session);
    CHECK(drive.session == NULL);
    for (size_t i = 0; i < drive.count; i++)
        double_free(&devices[i]);
    return 0;
}
